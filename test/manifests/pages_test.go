// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// A page is a document of the repository, as tests look at it.
type page struct {
	// file is its path from the root of the repository.
	file    string
	links   []string
	anchors map[string]bool
	blocks  []block
	// spans are the pieces of code in its text.
	spans []string
}

// A block of code. Behind its language may be a note: what the block is when it doesn't stand by itself.
type block struct{ language, note, text string }

// users says whether the page is one that users read to run the mesh.
func (p page) users() bool { return p.file == "README.md" || filepath.Dir(p.file) == "docs" }

// pages are all documents of the repository.
func pages(t *testing.T) map[string]page {
	t.Helper()
	out, root := map[string]page{}, apiserver.Root()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, path)
		out[file] = parsePage(file, source)
		return err
	}))
	require.Contains(t, out, "README.md")
	require.Contains(t, out, "docs/user-guide.md")
	return out
}

func parsePage(file string, source []byte) page {
	p := page{file: file, anchors: map[string]bool{}}
	tree := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(source))
	// The walk fails only where the function does, which doesn't.
	_ = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			p.links = append(p.links, string(n.Destination))
		case *ast.Image:
			p.links = append(p.links, string(n.Destination))
		case *ast.Heading:
			p.addAnchor(anchor(words(n, source)))
		case *ast.CodeSpan:
			p.spans = append(p.spans, words(n, source))
		case *ast.FencedCodeBlock:
			b := block{language: string(n.Language(source)), text: string(n.Lines().Value(source))}
			if n.Info != nil {
				b.note = strings.TrimSpace(strings.TrimPrefix(string(n.Info.Value(source)), b.language))
			}
			p.blocks = append(p.blocks, b)
		}
		return ast.WalkContinue, nil
	})
	return p
}

// addAnchor of a heading. GitHub numbers those that are there already.
func (p *page) addAnchor(name string) {
	unique := name
	for n := 1; p.anchors[unique]; n++ {
		unique = name + "-" + strconv.Itoa(n)
	}
	p.anchors[unique] = true
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// words of a node, without their markup.
func words(n ast.Node, source []byte) string {
	var out strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			out.Write(t.Value(source))
			if t.SoftLineBreak() {
				out.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return out.String()
}

func TestAnchorsAsGitHubHasThem(t *testing.T) {
	p := parsePage("x.md", []byte("# What `a_b` is, or: isn't\n## [Ports](x.md) of *it*\n## Limits\n## Limits\n"))
	require.Equal(t, map[string]bool{
		"what-a_b-is-or-isnt": true, "ports-of-it": true, "limits": true, "limits-1": true,
	}, p.anchors)
}
