// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/reference/conditions.md anew")

const referenceHead = `# Conditions and reasons

What the mesh adds to the conditions of the Gateway API and of Kubernetes. The message of a condition says what to do in the case at
hand: ` + "`kubectl describe`" + ` shows it, and ` + "`fairway status`" + `. [States](../states/README.md) has examples.
`

// TestReference: the page of conditions has what their declarations say, each group of constants under its own heading.
func TestReference(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "api", "v1alpha1", "conditions*.go"))
	require.NoError(t, err)
	slices.Sort(files)
	constants := map[string]string{}
	var groups []*ast.GenDecl
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				groups = append(groups, g)
			}
		}
	}
	for _, g := range groups {
		each(t, g, func(name, value, _ string) { constants[name] = value })
	}
	var page strings.Builder
	page.WriteString(referenceHead)
	// Texts of one declaration name others, which users know by their values.
	pairs := make([]string, 0, 2*len(constants))
	for _, name := range slices.Backward(sorted(constants)) { // longer names before those that they begin with
		pairs = append(pairs, name, "`"+constants[name]+"`")
	}
	values := strings.NewReplacer(pairs...)
	for _, g := range groups {
		title, rest, _ := strings.Cut(values.Replace(words(g.Doc))+" ", ". ")
		fmt.Fprintf(&page, "\n## %s\n", strings.TrimSuffix(title, "."))
		if rest = strings.TrimSpace(rest); rest != "" {
			fmt.Fprintf(&page, "\n%s\n", rest)
		}
		page.WriteString("\n| | |\n|---|---|\n")
		each(t, g, func(name, value, says string) {
			says = strings.TrimLeft(strings.TrimPrefix(says, name), ",: ")
			fmt.Fprintf(&page, "| `%s` | %s |\n", value, strings.ReplaceAll(values.Replace(says), "|", "\\|"))
		})
	}
	file := filepath.Join(root, "docs", "reference", "conditions.md")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755)) //nolint:gosec // a document, for everybody
		require.NoError(t, os.WriteFile(file, []byte(page.String()), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), page.String(), "refresh with: go test ./internal/conditions -update")
}

func sorted(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// each calls a function with each constant of a group, its value, and what its comment says.
func each(t *testing.T, g *ast.GenDecl, do func(name, value, says string)) {
	t.Helper()
	for _, s := range g.Specs {
		v, ok := s.(*ast.ValueSpec)
		require.True(t, ok)
		l, ok := v.Values[0].(*ast.BasicLit)
		require.True(t, ok, v.Names[0].Name)
		value, err := strconv.Unquote(l.Value)
		require.NoError(t, err)
		says := words(v.Doc)
		require.NotEmpty(t, says, "%s needs a comment, which users read", v.Names[0].Name)
		do(v.Names[0].Name, value, says)
	}
}

func words(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
