// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"go/ast"
	"go/parser"
	"go/token"
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
	name := regexp.MustCompile(`"(fairway_(?:xds|ca|trust|token|certificates|relay|agent)_[a-z_]+)"`)
	found := 0
	for _, dir := range []string{"internal", "controllers"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(apiserver.Root(), dir), func(
			path string, d fs.DirEntry, err error,
		) error {
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

// TestDocumentsNameTestsThatExist looks up every test that a document names: what a page says is held by a test must
// be. A link must lead to the test's file. A subtest is a name in that file, or a directory of test data beside it.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	root := apiserver.Root()
	tests := testsOf(t, root)
	linked := regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:/([a-z0-9-]+))?`(?:\\]\\(([^)]+)\\))?")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	design, err := filepath.Glob(filepath.Join(root, "docs", "design", "*.md"))
	require.NoError(t, err)
	for _, page := range append(pages, design...) {
		raw, err := os.ReadFile(page)
		require.NoError(t, err)
		found := linked.FindAllStringSubmatch(string(raw), -1)
		if filepath.Base(page) == "security.md" {
			require.NotEmpty(t, found, "the security page names its tests")
		}
		for _, m := range found {
			name, sub, link := m[1], m[2], m[3]
			where := filepath.Base(page) + " names " + name
			require.NotEmpty(t, tests[name], where)
			if link == "" {
				continue
			}
			file := filepath.Join(filepath.Dir(page), link)
			require.Contains(t, tests[name], file, where)
			if sub == "" {
				continue
			}
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			if !strings.Contains(string(source), `"`+sub+`"`) {
				require.DirExists(t, filepath.Join(filepath.Dir(file), "testdata", sub), where)
			}
		}
	}
}

// testsOf the tree: the files that have a test of a name.
func testsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[f.Name.Name] = append(tests[f.Name.Name], path)
			}
		}
		return nil
	}))
	return tests
}
