// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package canaries

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// block is one of a page that is a manifest.
var block = regexp.MustCompile("(?s)\n```yaml([^\n]*)\n(.*?)\n```\n")

// manifest is the only block of docs/canaries.md with a note and a text, for a namespace.
func manifest(t *testing.T, note, text, namespace string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/canaries.md")
	require.NoError(t, err)
	var found []string
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		if strings.TrimSpace(m[1]) == note && strings.Contains(m[2], text) {
			found = append(found, m[2])
		}
	}
	require.Len(t, found, 1, "blocks %q with %q", note, text)
	return replaced(t, found[0], "namespace: bookshop", "namespace: "+namespace)
}

// replaced is a text in which something occurs, and something else is instead.
func replaced(t *testing.T, text, old, instead string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.ReplaceAll(text, old, instead)
}

// TestManifests finds the manifests in the page, without any cluster.
func TestManifests(t *testing.T) {
	require.Contains(t, deploymentOf(t, "here", "v2"), "--name=v2")
	require.Contains(t, canaryOf(t, "here", "http://127.0.0.1:1/"), "interval: 10s ")
}

func deploymentOf(t *testing.T, namespace, version string) string {
	t.Helper()
	return replaced(t, manifest(t, "", "kind: Deployment", namespace), "--name=v1", "--name="+version)
}

// canaryOf has less patience than people have, and asks a test whether to go on.
func canaryOf(t *testing.T, namespace, judge string) string {
	t.Helper()
	c := manifest(t, "of Flagger", "kind: Canary", namespace)
	return replaced(t, replaced(t, c, "interval: 1m ", "interval: 10s "), "http://judge.bookshop/", judge)
}
