// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/parser"
	exprv1alpha1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// CEL is an expression as Envoy takes it where it wants it parsed. What its names stand for is for Envoy to know: one
// that doesn't exist fails when it is asked.
func CEL(expression string) (*exprv1alpha1.Expr, error) {
	p, err := parser.NewParser(parser.Macros(parser.AllMacros...))
	if err != nil {
		return nil, err
	}
	parsed, bad := p.Parse(common.NewTextSource(expression))
	if len(bad.GetErrors()) > 0 {
		return nil, errors.New(bad.ToDisplayString())
	}
	return ast.ExprToProto(parsed.Expr())
}
