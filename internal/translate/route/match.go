// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"regexp"
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
	parts := []string{anyName, anyName}
	for n, part := range []string{g.GRPCService, g.GRPCMethod} {
		if part == "" {
			continue
		}
		// Each by itself: "a)|(b" is an expression only together with what is around it.
		if _, err := regex(part); err != nil {
			return fmt.Errorf("gRPC method: %w", err)
		}
		parts[n] = "(?:" + part + ")"
	}
	re, err := regex("/" + parts[0] + "/" + parts[1])
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
