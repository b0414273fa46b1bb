// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// mostAuthenticationOfOthers is what the AuthenticationPolicies of one namespace may cost the waypoints of another, in
// bytes: a route is enough to have them there. The own namespace pays with its own waypoint.
const mostAuthenticationOfOthers = 2 << 20

// affordable are the sets of policies that a waypoint of a namespace verifies tokens for. What others aren't known to
// the proxies, and so they let nothing pass where a table asks for them.
func affordable(
	owner string, sets [][]cluster.Key, of func(cluster.Key) *model.Authentication,
) (out [][]cluster.Key) {
	spent, paid := map[string]int{}, map[cluster.Key]bool{}
	for _, set := range sets {
		price, others := priceOf(set, paid, of), []string{}
		for _, name := range set {
			if name.Namespace != owner && !slices.Contains(others, name.Namespace) {
				others = append(others, name.Namespace)
			}
		}
		if slices.ContainsFunc(others, func(ns string) bool { return spent[ns]+price > mostAuthenticationOfOthers }) {
			continue
		}
		for _, ns := range others {
			spent[ns] += price
		}
		for _, name := range set {
			paid[name] = true
		}
		out = append(out, set)
	}
	return out
}

// priceOf a set are the rules that it becomes, and those of its policies that no set before has paid for.
func priceOf(set []cluster.Key, paid map[cluster.Key]bool, of func(cluster.Key) *model.Authentication) (bytes int) {
	const each = 512
	rules := 1
	for _, name := range set {
		p := of(name)
		if p == nil || p.Tokens == nil {
			continue
		}
		places := 1
		for _, provider := range p.Tokens.Providers {
			places += len(provider.Headers) + len(provider.Params) + len(provider.Cookies)
			if !paid[name] {
				bytes += each + bytesOfProvider(provider)
			}
		}
		if p.Tokens.Optional {
			rules = min(rules*places, model.MostRulesOfTokens)
		}
	}
	return bytes + rules*len(set)*each
}

func bytesOfProvider(p model.TokenProvider) (bytes int) {
	bytes = len(p.Keys) + len(p.Issuer) + len(strings.Join(p.Audiences, " "))
	if p.Remote != nil {
		bytes += len(p.Remote.URI)
	}
	for _, c := range p.Claims {
		bytes += len(c.Claim) + len(c.Header)
	}
	return bytes
}
