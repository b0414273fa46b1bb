// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestLinksLeadSomewhere follows all links between documents, and to files and headings.
func TestLinksLeadSomewhere(t *testing.T) {
	all, followed := pages(t), 0
	for _, p := range all {
		for _, link := range p.links {
			if strings.Contains(link, "://") {
				continue
			}
			followed++
			file, heading, withHeading := strings.Cut(link, "#")
			target := p.file
			if file != "" {
				target = filepath.Join(filepath.Dir(p.file), file)
			}
			if _, err := os.Stat(filepath.Join(apiserver.Root(), target)); !assert.NoError(t, err, "%s: link %s", p.file, link) {
				continue
			}
			if withHeading {
				assert.True(t, all[target].anchors[heading], "%s: link %s: %s has no such heading", p.file, link, target)
			}
		}
	}
	require.Greater(t, followed, 100)
}

// TestDocumentsNamePathsThatExist looks up the paths of this repository that documents name without a link.
func TestDocumentsNamePathsThatExist(t *testing.T) {
	inTree := regexp.MustCompile(`^(?:api|bundle|changelogs|config|controllers|docs|hack|internal|test)/[\w./-]+$`)
	found := 0
	for _, p := range pages(t) {
		for _, span := range p.spans {
			if !inTree.MatchString(span) {
				continue
			}
			found++
			path := strings.TrimSuffix(span, "/...")
			// A page may name what lies beside it.
			if _, err := os.Stat(filepath.Join(apiserver.Root(), filepath.Dir(p.file), path)); err == nil {
				continue
			}
			_, err := os.Stat(filepath.Join(apiserver.Root(), path))
			assert.NoError(t, err, "%s names %s", p.file, span)
		}
	}
	require.NotZero(t, found)
}
