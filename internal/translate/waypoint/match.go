// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/model"
)

// routeMatch is a rule's conjunction.
func routeMatch(r model.Rule) (*routev3.RouteMatch, error) {
	m := &routev3.RouteMatch{}
	var err error
	if r.Match.GRPCService != "" || r.Match.GRPCMethod != "" {
		err = grpcMatch(m, r.Match)
	} else {
		err = pathMatch(m, r.Match.Path)
	}
	if err != nil {
		return nil, err
	}
	if r.Match.Method != "" {
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exact(r.Match.Method)},
		})
	}
	for _, h := range r.Match.Headers {
		s, err := stringMatch(h.StringMatch)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{
			Name:                 matchedHeader(h.Name),
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: s},
		})
	}
	for _, q := range r.Match.Query {
		s, err := stringMatch(q.StringMatch)
		if err != nil {
			return nil, fmt.Errorf("query parameter %s: %w", q.Name, err)
		}
		m.QueryParameters = append(m.QueryParameters, &routev3.QueryParameterMatcher{
			Name:                         q.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: s},
		})
	}
	return m, nil
}

// pathMatch without a match matches every path. A trailing slash of a prefix means nothing (Gateway API).
func pathMatch(m *routev3.RouteMatch, p *model.StringMatch) error {
	if p == nil {
		p = &model.StringMatch{Type: model.MatchPrefix, Value: "/"}
	}
	switch p.Type {
	case model.MatchExact:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Value}
	case model.MatchPrefix:
		prefix := trimPrefix(p.Value)
		if prefix == "" {
			m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
			return nil
		}
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}
	case model.MatchRegex:
		re, err := regex(p.Value)
		if err != nil {
			return fmt.Errorf("path: %w", err)
		}
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: re}
	default:
		return fmt.Errorf("path match type %q is unknown", p.Type)
	}
	return nil
}

// trimPrefix is a path prefix without its trailing slashes; "" is the root.
func trimPrefix(p string) string { return strings.TrimRight(p, "/") }

// grpcMatch compares the path of a gRPC call, /service/method.
func grpcMatch(m *routev3.RouteMatch, g model.Match) error {
	const anyName = "[^/]+"
	if g.GRPCType != model.MatchRegex {
		switch {
		case g.GRPCMethod == "":
			m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/" + g.GRPCService + "/"}
			return nil
		case g.GRPCService != "":
			m.PathSpecifier = &routev3.RouteMatch_Path{Path: "/" + g.GRPCService + "/" + g.GRPCMethod}
			return nil
		}
		g.GRPCMethod = regexp.QuoteMeta(g.GRPCMethod)
	}
	service, method := anyName, anyName
	if g.GRPCService != "" {
		service = "(?:" + g.GRPCService + ")"
	}
	if g.GRPCMethod != "" {
		method = "(?:" + g.GRPCMethod + ")"
	}
	re, err := regex("/" + service + "/" + method)
	if err != nil {
		return fmt.Errorf("gRPC method: %w", err)
	}
	m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: re}
	return nil
}

// matchedHeader is the name under which Envoy keeps a header.
func matchedHeader(name string) string {
	if strings.EqualFold(name, "host") {
		return ":authority"
	}
	return strings.ToLower(name)
}

func stringMatch(s model.StringMatch) (*matcherv3.StringMatcher, error) {
	switch s.Type {
	case model.MatchExact:
		return exact(s.Value), nil
	case model.MatchRegex:
		re, err := regex(s.Value)
		if err != nil {
			return nil, err
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: re}}, nil
	default:
		return nil, fmt.Errorf("match type %q does not apply here", s.Type)
	}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

// regex is an RE2 expression for the whole string; Go's regexp package accepts the same syntax as Envoy.
func regex(s string) (*matcherv3.RegexMatcher, error) {
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := programSize(program); n > maxProgramSize {
		return nil, fmt.Errorf("the expression needs about %d instructions, and %d are allowed: simplify it", n, maxProgramSize)
	}
	return &matcherv3.RegexMatcher{Regex: s}, nil
}

// maxProgramSize is some way below what RE2 compiles within its memory; the proxies' bootstrap allows as much.
const maxProgramSize = 20_000

// programSize estimates, rather too high, how many instructions RE2 needs: it matches bytes, so a range of characters
// becomes a few ranges of bytes.
func programSize(p *syntax.Prog) int {
	const perRange = 5
	n := 0
	for _, inst := range p.Inst {
		n++
		switch inst.Op {
		case syntax.InstRune:
			n += perRange * (len(inst.Rune) + 1) / 2
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			n += 2 * perRange
		default:
		}
	}
	return n
}
