// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// configure sets what an HTTP filter does on a route.
func configure(r *routev3.Route, filter string, m envoy.Message) error {
	if err := envoy.Check(m); err != nil {
		return err
	}
	if r.TypedPerFilterConfig == nil {
		r.TypedPerFilterConfig = map[string]*anypb.Any{}
	}
	r.TypedPerFilterConfig[filter] = envoy.Any(m)
	return nil
}

// configureCORS is CORS as of GEP-1767. Browsers take a wildcard for a literal name where credentials are allowed, so
// what the caller asks for is allowed by its name then.
func configureCORS(r *routev3.Route, c model.CORS) error {
	var echoed []*mutationrulesv3.HeaderMutation
	allow := func(names []string, answer, ask string) string {
		if !c.AllowCredentials || !slices.Contains(names, "*") {
			return list(names)
		}
		echoed = append(echoed, echo(answer, ask))
		return ""
	}
	p := &corsv3.CorsPolicy{
		AllowMethods:     allow(c.AllowMethods, "access-control-allow-methods", "access-control-request-method"),
		AllowHeaders:     allow(c.AllowHeaders, "access-control-allow-headers", "access-control-request-headers"),
		ExposeHeaders:    list(c.ExposeHeaders),
		AllowCredentials: envoy.Bool(c.AllowCredentials),
		// A preflight from elsewhere is not the application's to answer.
		ForwardNotMatchingPreflights: envoy.Bool(false),
	}
	if c.MaxAge > 0 {
		p.MaxAge = strconv.FormatInt(int64(c.MaxAge.Seconds()), 10)
	}
	for _, o := range c.AllowOrigins {
		m, err := origin(o)
		if err != nil {
			return err
		}
		p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, m)
	}
	if echoed != nil {
		mutations := &headermutationv3.HeaderMutationPerRoute{Mutations: &headermutationv3.Mutations{
			ResponseMutations: echoed,
		}}
		if err := configure(r, filterEcho, mutations); err != nil {
			return err
		}
	}
	return configure(r, filterCORS, p)
}

// echo puts what a preflight asks for into its answer. Other requests don't ask: browsers keep scripts from setting
// these headers.
func echo(answer, ask string) *mutationrulesv3.HeaderMutation {
	return envoy.SetHeader(answer, "%REQ("+ask+")%", corev3.HeaderValueOption_ADD_IF_ABSENT)
}

// origin matches an origin; a wildcard stands for any text within the host and port.
func origin(o string) (*matcherv3.StringMatcher, error) {
	if !strings.Contains(o, "*") {
		return exact(o), nil
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(o), `\*`, `[^/]+`)
	if o == "*" {
		pattern = ".*"
	}
	re, err := regex(pattern)
	if err != nil {
		return nil, err
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: re}}, nil
}

func list(s []string) string { return strings.Join(s, ", ") }
