// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// PolicyName is an AuthenticationPolicy's.
type PolicyName = types.NamespacedName

// RuleAuthentication is the rule by which an AuthenticationPolicy refuses connections that carry no requests. No rule
// of an AuthorizationPolicy can have the name.
const RuleAuthentication = "needs authentication"

// Authentication is how those prove who they are that send requests, as an AuthenticationPolicy has it.
type Authentication struct {
	// Policy by whose name guards ask for it.
	Policy PolicyName
	// Edition of the policy; see EditionOf.
	Edition string
	// Invalid: it can't be carried out, so nobody can prove anything and all requests are refused.
	Invalid bool
	// Tokens that requests carry; nil: none are asked for.
	Tokens *Tokens
	// Asked is asked about requests whose tokens are good; nil: nobody is.
	Asked *ExternalAuth
}

// Tokens are JSON Web Tokens. One that is there must be good for one of the providers.
type Tokens struct {
	// Optional: a request without a token passes.
	Optional  bool
	Providers []TokenProvider
}

// TokenProvider issues tokens.
type TokenProvider struct {
	Name, Issuer string
	// Audiences, one of which a token must be for; nil: any.
	Audiences []string
	// Keys in JSON (RFC 7517), unless they are to be fetched.
	Keys   string
	Remote *RemoteKeys
	// Headers, Params and Cookies are where tokens are looked for.
	Headers         []TokenHeader
	Params, Cookies []string
	// Forward the token to the application.
	Forward bool
	Claims  []ClaimHeader
}

// SharesPlace tells whether tokens of another provider are looked for where those of this one are.
func (p TokenProvider) SharesPlace(o TokenProvider) bool {
	in := func(all []string) func(string) bool {
		return func(s string) bool { return slices.Contains(all, s) }
	}
	return slices.ContainsFunc(p.Params, in(o.Params)) || slices.ContainsFunc(p.Cookies, in(o.Cookies)) ||
		slices.ContainsFunc(p.Headers, func(h TokenHeader) bool {
			return slices.ContainsFunc(o.Headers, func(other TokenHeader) bool { return other.Name == h.Name })
		})
}

// TokenHeader is a header in lower case, and what is before the token in it.
type TokenHeader struct{ Name, Prefix string }

// ClaimHeader is a header in lower case that the application gets a claim as.
type ClaimHeader struct{ Header, Claim string }

// MostKeys is how many bytes a set of keys may have that is fetched.
const MostKeys = 64 << 10

// RemoteKeys are fetched by each proxy.
type RemoteKeys struct {
	URI     string
	Service ServicePort
	// TLS: they are asked for in TLS; see Upstream.
	TLS bool
	// CacheFor is how long until they are fetched again.
	CacheFor, Timeout time.Duration
}

// Authentications are all that a waypoint's tables ask for.
type Authentications struct {
	// Policies, sorted by name.
	Policies []Authentication
	// Sets of them that one request must satisfy together, sorted, each by names that are sorted.
	Sets [][]PolicyName
}

// Editions of the policies, in their order.
func (a Authentications) Editions() (out []string) {
	for _, p := range a.Policies {
		out = append(out, p.Edition)
	}
	return out
}

// Needed are the policies that requests must satisfy to pass all of the guards, sorted.
func Needed(guards []Guard) (out []PolicyName) {
	for _, g := range guards {
		out = append(out, g.Authentication...)
	}
	slices.SortFunc(out, func(a, b PolicyName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return Together(slices.Compact(out))
}

// MostTogether is how many policies may be for one request.
const MostTogether = 16

// Together are policies that one request must satisfy. Beyond MostTogether it is one that doesn't exist, so that
// nothing satisfies it.
func Together(policies []PolicyName) []PolicyName {
	if len(policies) <= MostTogether {
		return policies
	}
	return []PolicyName{{Namespace: policies[0].Namespace, Name: "too many policies"}}
}

// MostRulesOfTokens is how many rules a set of policies may become, one for each way in which tokens may be there that
// policies don't require. Where these are so many, or look for tokens in so many places, nothing satisfies them
// together.
const MostRulesOfTokens = 128

// AuthenticationSet is how proxies name a set of policies: by the names of all, separated by commas.
func AuthenticationSet(policies []PolicyName) string {
	all := make([]string, 0, len(policies))
	for _, p := range policies {
		all = append(all, p.String())
	}
	return strings.Join(all, ",")
}
