// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/parser"
	"golang.org/x/net/http/httpguts"
	exprv1alpha1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// CEL is an expression as Envoy takes it where it wants it parsed. What its names stand for is for Envoy to know: one
// that doesn't exist fails when it is asked.
func CEL(expression string) (*exprv1alpha1.Expr, error) {
	e, err := parseCEL(expression)
	if err != nil {
		return nil, err
	}
	return ast.ExprToProto(e)
}

// CELKeys are the names of headers that an expression may ask for: all its texts and fields that can be one. There is
// none if it can't be read.
func CELKeys(expression string) (out []string) {
	e, err := parseCEL(expression)
	if err != nil {
		return nil
	}
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		key := ""
		if e.Kind() == ast.LiteralKind {
			key, _ = e.AsLiteral().Value().(string)
		} else if e.Kind() == ast.SelectKind {
			key = e.AsSelect().FieldName()
		}
		if httpguts.ValidHeaderFieldName(key) {
			out = append(out, key)
		}
	}))
	return out
}

// CELText is a string as a literal. It has no character by which an expression or Envoy's format might end: neither a
// quotation mark nor a parenthesis or per cent sign.
func CELText(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '\'')
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(" -./:_?,#*", r):
			b = utf8.AppendRune(b, r)
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(append(b, '\''))
}

func parseCEL(expression string) (ast.Expr, error) {
	p, err := parser.NewParser(parser.Macros(parser.AllMacros...))
	if err != nil {
		return nil, err
	}
	parsed, bad := p.Parse(common.NewTextSource(expression))
	if len(bad.GetErrors()) > 0 {
		return nil, errors.New(bad.ToDisplayString())
	}
	return parsed.Expr(), nil
}
