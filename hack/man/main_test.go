// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPages(t *testing.T) {
	var before []byte
	for range 2 { // the same bytes, whenever they are made
		dir := t.TempDir()
		require.NoError(t, run(dir, "2026-01-02T03:04:05Z"))
		for _, page := range []string{"fairway.1", "fairway-status.1", "fairway-proxy-clusters.1"} {
			require.FileExists(t, filepath.Join(dir, page))
		}
		got, err := os.ReadFile(filepath.Join(dir, "fairway-describe.1"))
		require.NoError(t, err)
		require.Contains(t, string(got), `"Jan 2026"`)
		require.NotContains(t, string(got), "Auto generated")
		if before != nil {
			require.Equal(t, string(before), string(got))
		}
		before = got
	}
	require.Error(t, run("", "2026-01-02T03:04:05Z"))
	require.Error(t, run(t.TempDir(), "today"))
}
