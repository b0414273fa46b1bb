// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestEveryMetricIsDocumented finds the names of metrics in the source and looks them up in docs/metrics.md.
func TestEveryMetricIsDocumented(t *testing.T) {
	docs, err := os.ReadFile(filepath.Join(apiserver.Root(), "docs", "metrics.md"))
	require.NoError(t, err)
	name := regexp.MustCompile(`"(fairway_(?:xds|ca|trust|certificates|relay|agent)_[a-z_]+)"`)
	found := 0
	for _, dir := range []string{"internal", "controllers"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(apiserver.Root(), dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range name.FindAllSubmatch(source, -1) {
				found++
				require.Contains(t, string(docs), "`"+string(m[1])+"`", "docs/metrics.md")
			}
			return nil
		}))
	}
	require.NotZero(t, found)
}
