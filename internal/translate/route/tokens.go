// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strconv"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A table says which policies a request must satisfy, for each way that requests take, and no more: the filter that
// verifies tokens (package authentication) has it from a header.

// authenticating tells that filter, or takes back what a less specific part of the table tells it. Where policies read
// requests, these have no trailers: nobody looks at those, and some applications read them as headers.
func authenticating(needed []model.PolicyName, guards []model.Guard) *headermutationv3.HeaderMutationPerRoute {
	m := &mutationrulesv3.HeaderMutation{
		Action: &mutationrulesv3.HeaderMutation_Remove{Remove: names.HeaderAuthentication},
	}
	if len(needed) > 0 {
		m = envoy.SetHeader(names.HeaderAuthentication, model.AuthenticationSet(needed),
			corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	}
	out := &headermutationv3.Mutations{RequestMutations: []*mutationrulesv3.HeaderMutation{m}}
	if readRequests(guards) {
		out.RequestTrailersMutations = []*mutationrulesv3.HeaderMutation{envoy.RemoveHeaders(matching(`.*`))}
	}
	return &headermutationv3.HeaderMutationPerRoute{Mutations: out}
}

// readRequests tells whether guards go by anything that a request says. Policies that are only tried change nothing.
func readRequests(guards []model.Guard) bool {
	return slices.ContainsFunc(guards, func(g model.Guard) bool {
		return len(g.InForce().Application) > 0 || len(g.Authentication) > 0
	})
}

// claim matches a claim of a token that any of the policies has verified, by the claim's name or, of nested ones, by
// its path with dots. It has one of the values, or is a list with one.
func claim(c model.AccessClaim, known []model.PolicyName) *rbacv3.Principal {
	paths := [][]string{{c.Name}}
	if nested := strings.Split(c.Name, "."); len(nested) > 1 && !slices.Contains(nested, "") {
		paths = append(paths, nested)
	}
	var any []*rbacv3.Principal
	for _, v := range c.Values {
		for _, is := range spellings(v) {
			for _, policy := range known {
				for _, path := range paths {
					path = append([]string{policy.String()}, path...)
					any = append(any, claimIs(path, is), claimIs(path, &matcherv3.ValueMatcher{
						MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
							MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: is},
						}},
					}))
				}
			}
		}
	}
	return envoy.OneOf(any...)
}

// spellings are what a claim can be that a policy writes as a text: that text, true or false, a number.
func spellings(v string) []*matcherv3.ValueMatcher {
	out := []*matcherv3.ValueMatcher{
		{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exact(v)}},
	}
	if v == "true" || v == "false" {
		out = append(out, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: v == "true"}})
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil && strconv.FormatFloat(n, 'f', -1, 64) == v {
		out = append(out, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{
			DoubleMatch: &matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Exact{Exact: n}},
		}})
	}
	return out
}

func claimIs(path []string, value *matcherv3.ValueMatcher) *rbacv3.Principal {
	m := &matcherv3.MetadataMatcher{Filter: names.MetadataTokens, Value: value}
	for _, s := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: text(s)},
		})
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_SourcedMetadata{
		SourcedMetadata: &rbacv3.SourcedMetadata{MetadataMatcher: m},
	}}
}
