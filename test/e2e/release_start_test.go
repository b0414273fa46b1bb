// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// offline is what of docs/start.md asks the internet, and what takes its place: the cluster has the kinds of the
// Gateway API, and the test tool stands in for images that it can't pull. Each takes the place of the first one left.
var offline = [][2]string{
	{
		"kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.3/" +
			"standard-install.yaml",
		"kubectl wait --for=condition=Established crd/httproutes.gateway.networking.k8s.io",
	},
	{agnhost + "[pause]", tool + "[serve, --name=shop]"},
	{agnhost + "[netexec, --http-port=8080]", tool + "[serve, --name=reviews-v1]"},
	{agnhost + "[netexec, --http-port=8080]", tool + "[serve, --name=reviews-v2]"},
	{
		"-- sh -c 'for i in $(seq 200); do curl -s http://reviews/hostname; echo; done | cut -d- -f1,2 | sort | uniq -c'",
		"-- /tool get -n 200 --no-keepalive http://reviews/hostname",
	},
}

const (
	// The page's namespace is the demo's, too, which may run on the same cluster.
	bookshop, startSpace = "bookshop", "e2e-start"

	waypointIdentity = `"destination":"spiffe://cluster.local/ns/` + startSpace + `/sa/fairway-waypoint"`

	agnhost = `image: "registry.k8s.io/e2e-test-images/agnhost:2.53", args: `
	tool    = `image: "` + toolImage + `", args: `
)

var codeBlock = regexp.MustCompile("(?s)```(\\w+)[^\n]*\n(.*?)```")

// blocks of code under a heading, of a language, as they are to be done here.
func blocks(t *testing.T, page, heading, language string) (out []string) {
	t.Helper()
	_, section, found := strings.Cut(page, "\n## "+heading+"\n")
	require.True(t, found, "heading %s", heading)
	section, _, _ = strings.Cut(section, "\n## ")
	for _, b := range codeBlock.FindAllStringSubmatch(section, -1) {
		if b[1] == language {
			out = append(out, b[2])
		}
	}
	require.NotEmpty(t, out, "%s of %s", language, heading)
	return out
}

// newcomer is a folder with a release, and nothing else.
type newcomer struct{ dir, path string }

func (n newcomer) does(t *testing.T, console string) (printed []string) {
	t.Helper()
	for line := range strings.Lines(console) {
		typed, is := strings.CutPrefix(line, "$ ")
		require.True(t, is, "%q is no command", line)
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", typed)
		cmd.Dir, cmd.Env = n.dir, append(os.Environ(), "PATH="+n.path)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s%s", line, out)
		printed = append(printed, string(out))
	}
	return printed
}

// TestReleaseStart does what docs/start.md says, word for word but for what asks the internet, up to the removal.
func TestReleaseStart(t *testing.T) {
	_, r := withReleases(t)
	page, err := os.ReadFile("../../docs/start.md")
	require.NoError(t, err)
	text := string(page)
	require.Contains(t, text, bookshop)
	text = strings.ReplaceAll(text, bookshop, startSpace)
	for _, o := range offline {
		require.Contains(t, text, o[0])
		text = strings.Replace(text, o[0], o[1], 1)
	}
	here := newcomer{dir: t.TempDir(), path: t.TempDir() + ":" + os.Getenv("PATH")}
	require.NoError(t, os.CopyFS(here.dir, os.DirFS(r.dir)))
	if _, err := exec.LookPath("kubectl"); err != nil {
		require.NoError(t, os.Symlink(filepath.Join(os.Getenv(apiserver.EnvBin), "kubectl"),
			filepath.Join(strings.Split(here.path, ":")[0], "kubectl")))
	}
	for i, content := range blocks(t, text, "Two files", "yaml") {
		name := []string{"app.yaml", "split.yaml"}[i]
		require.NoError(t, os.WriteFile(filepath.Join(here.dir, name), []byte(content), 0o600))
	}
	noObjects(t)

	commands := blocks(t, text, "Ten commands", "console")[0]
	require.Equal(t, 10, strings.Count(commands, "\n"))
	printed := here.does(t, commands)
	answers := parseTally(printed[9])
	require.Equal(t, 200, answers.of("reviews-v1")+answers.of("reviews-v2"), printed[9])
	require.InDelta(t, 180, answers.of("reviews-v1"), 18)

	shown := here.does(t, blocks(t, text, "See that it is so", "console")[0])
	assert.Regexp(t, "All is well|The mesh is well", shown[0]) // the demo has a route with a mistake
	for _, end := range []string{`"source":"spiffe://cluster.local/ns/` + startSpace + `/sa/default"`, waypointIdentity} {
		assert.Contains(t, shown[1], end)
	}
	assert.Contains(t, shown[2], "reviews-v1")

	here.does(t, blocks(t, text, "Then", "console")[0])
	noObjects(t)
	noTracesOnNodes(t)
}
