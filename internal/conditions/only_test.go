// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

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
)

const root = "../.."

// TestOneKitchen: conditions are made in one package, statuses written in one, reasons declared in one, and nobody
// finds a condition by its place in the list.
func TestOneKitchen(t *testing.T) {
	for _, dir := range []string{"api", "controllers", "internal"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.Contains(path, "zz_generated") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if wrong := outside(path, n); wrong != "" {
					t.Errorf("%s: %s", files.Position(n.Pos()), wrong)
				}
				return true
			})
			return nil
		}))
	}
}

// outside says what a piece of code does that another package is for; empty if nothing.
func outside(path string, n ast.Node) string {
	in := func(pkg string) bool { return strings.HasPrefix(path, filepath.Join(root, pkg)+"/") }
	if index, ok := n.(*ast.IndexExpr); ok && selects(index.X, "Conditions") {
		switch index.Index.(type) {
		case *ast.BasicLit, *ast.BinaryExpr:
			return "find a condition by its type"
		}
	}
	if strings.HasSuffix(path, "_test.go") {
		return ""
	}
	switch n := n.(type) {
	case *ast.CompositeLit:
		made := selects(n.Type, "Condition") || selects(n.Type, "PodCondition")
		if made && !in("internal/conditions") && !in("internal/status") {
			return "make conditions by package conditions"
		}
	case *ast.CallExpr:
		if selects(n.Fun, "SetStatusCondition") && !in("internal/conditions") {
			return "set conditions by package conditions"
		}
		if call, ok := n.Fun.(*ast.SelectorExpr); ok && !in("internal/status") {
			if on, ok := call.X.(*ast.CallExpr); ok && selects(on.Fun, "Status") {
				return "write statuses by package status"
			}
		}
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if !in("api/v1alpha1") && reasonName.MatchString(name.Name) && i < len(n.Values) && literal(n.Values[i]) {
				return "declare reasons in api/v1alpha1"
			}
		}
	}
	return ""
}

var reasonName = regexp.MustCompile(`(^r|R)eason[A-Z]`)

func selects(e ast.Expr, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == name
}

func literal(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.STRING
}

// TestGoldenMessagesAreSentences: every message of a condition that ingest makes in its golden files is one, and reads
// as one.
func TestGoldenMessagesAreSentences(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "internal/ingest/testdata/*/statuses.txt"))
	require.NoError(t, err)
	said := regexp.MustCompile(`(?m)^ +(?:Accepted|ResolvedRefs|PartiallyInvalid) (?:True|False) \w+: (.*)$`)
	odd := regexp.MustCompile(`\.\.|[:;, ]\.|  `)
	messages := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			messages++
			require.Equal(t, sentence(m[1]), m[1], path)
			require.False(t, odd.MatchString(m[1]), "%s: %s", path, m[1])
		}
	}
	require.Greater(t, messages, 100)
}
