// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// providerNone is of tokens that nobody can issue: what needs one is refused.
	providerNone = "none"
	// refetch is how long after a failure keys are fetched again.
	refetch = 2 * time.Second
	// claimNone is no token's.
	claimNone = "fairway.dev/none"
	// scopes is the claim whose text is a list of words (RFC 8693, 4.2).
	scopes = "scope"
)

// Tokens is the filter for all that a waypoint's tables ask for. The first rule that matches decides. A set that it
// doesn't know, for the table is newer, is one that nothing satisfies.
func Tokens(a model.Authentications) *jwtauthnv3.JwtAuthentication {
	out := &jwtauthnv3.JwtAuthentication{Providers: map[string]*jwtauthnv3.JwtProvider{providerNone: {
		Issuer:              "fairway.dev/none",
		JwksSourceSpecifier: keysInline(""),
	}}}
	policies := byName(a)
	for _, set := range a.Sets {
		var all []model.Authentication
		for _, name := range set {
			p, ok := policies[name]
			if !ok {
				p.Invalid = true
			}
			all = append(all, p)
		}
		all = keepTokens(all)
		for _, p := range all {
			if p.Tokens == nil || p.Invalid {
				continue
			}
			for _, provider := range p.Tokens.Providers {
				out.Providers[providerName(p, provider)] = providerOf(p, provider)
			}
		}
		out.Rules = append(out.Rules, rulesOf(model.AuthenticationSet(set), all)...)
	}
	out.Rules = append(out.Rules, refuse(asks("")))
	return out
}

func byName(a model.Authentications) map[model.PolicyName]model.Authentication {
	out := map[model.PolicyName]model.Authentication{}
	for _, p := range a.Policies {
		out[p.Policy] = p
	}
	return out
}

// keepTokens of the policies of a set, of which one after the other looks at a request: a provider that takes the token
// out leaves it to the last one that looks for one at the same place.
func keepTokens(all []model.Authentication) []model.Authentication {
	out := slices.Clone(all)
	for n, p := range all {
		if p.Tokens == nil {
			continue
		}
		tokens := *p.Tokens
		tokens.Providers = slices.Clone(tokens.Providers)
		for m := range tokens.Providers {
			provider := &tokens.Providers[m]
			if !provider.Forward && slices.ContainsFunc(all[n+1:], func(later model.Authentication) bool {
				return later.Tokens != nil && slices.ContainsFunc(later.Tokens.Providers, provider.SharesPlace)
			}) {
				provider.Name += "/kept"
				provider.Forward = true
			}
		}
		out[n].Tokens = &tokens
	}
	return out
}

func providerName(p model.Authentication, provider model.TokenProvider) string {
	return p.Policy.String() + "/" + provider.Name
}

func providerOf(p model.Authentication, provider model.TokenProvider) *jwtauthnv3.JwtProvider {
	out := &jwtauthnv3.JwtProvider{
		Issuer: provider.Issuer, Audiences: provider.Audiences,
		RequireExpiration: true,
		Forward:           provider.Forward,
		FromParams:        provider.Params,
		FromCookies:       provider.Cookies,
		PayloadInMetadata: p.Policy.String(),
		NormalizePayloadInMetadata: &jwtauthnv3.JwtProvider_NormalizePayload{
			SpaceDelimitedClaims: []string{scopes},
		},
		JwksSourceSpecifier: keysInline(provider.Keys),
	}
	for _, h := range provider.Headers {
		out.FromHeaders = append(out.FromHeaders, &jwtauthnv3.JwtHeader{Name: h.Name, ValuePrefix: h.Prefix})
	}
	out.ClaimToHeaders = claimHeaders(p, provider)
	if r := provider.Remote; r != nil {
		out.JwksSourceSpecifier = &jwtauthnv3.JwtProvider_RemoteJwks{RemoteJwks: keysFetched(*r)}
	}
	return out
}

// claimHeaders have those of the policy's other providers, too, with a claim that no token has: so nobody sets them
// with a token of this one.
func claimHeaders(p model.Authentication, provider model.TokenProvider) (out []*jwtauthnv3.JwtClaimToHeader) {
	for _, c := range provider.Claims {
		out = append(out, &jwtauthnv3.JwtClaimToHeader{HeaderName: c.Header, ClaimName: c.Claim})
	}
	for _, other := range p.Tokens.Providers {
		for _, c := range other.Claims {
			if !slices.ContainsFunc(out, func(h *jwtauthnv3.JwtClaimToHeader) bool { return h.GetHeaderName() == c.Header }) {
				out = append(out, &jwtauthnv3.JwtClaimToHeader{HeaderName: c.Header, ClaimName: claimNone})
			}
		}
	}
	return out
}

// keysInline may be none, and then no token is good.
func keysInline(keys string) *jwtauthnv3.JwtProvider_LocalJwks {
	return &jwtauthnv3.JwtProvider_LocalJwks{
		LocalJwks: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: keys}},
	}
}

// keysFetched are fetched at once, and again before they are too old, once for all threads. They are good until others
// come, however long a server can't be asked. A request that comes before the first asks by itself.
func keysFetched(r model.RemoteKeys) *jwtauthnv3.RemoteJwks {
	from := names.RequestsTo(r.Service.Namespace, r.Service.Service, r.Service.Port, r.TLS)
	return &jwtauthnv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri: r.URI, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: from}, Timeout: envoy.Duration(r.Timeout),
		},
		CacheDuration: envoy.Duration(r.CacheFor),
		AsyncFetch:    &jwtauthnv3.JwksAsyncFetch{FastListener: true, FailedRefetchDuration: durationpb.New(refetch)},
	}
}

// goodToken is required by a policy: of one of its providers.
func goodToken(p model.Authentication) *jwtauthnv3.JwtRequirement {
	any := providersOf(p)
	if len(any) == 1 {
		return any[0]
	}
	return anyOf(any)
}

// noToken lets pass what has none. The providers are asked all the same: that takes from the request the headers by
// which applications get claims.
func noToken(p model.Authentication) *jwtauthnv3.JwtRequirement {
	return anyOf(append(providersOf(p), &jwtauthnv3.JwtRequirement{
		RequiresType: &jwtauthnv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}},
	}))
}

func providersOf(p model.Authentication) (out []*jwtauthnv3.JwtRequirement) {
	for _, provider := range p.Tokens.Providers {
		out = append(out, needs(providerName(p, provider)))
	}
	return out
}

func needs(provider string) *jwtauthnv3.JwtRequirement {
	return &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_ProviderName{ProviderName: provider}}
}

func anyOf(any []*jwtauthnv3.JwtRequirement) *jwtauthnv3.JwtRequirement {
	return &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_RequiresAny{
		RequiresAny: &jwtauthnv3.JwtRequirementOrList{Requirements: any},
	}}
}

// allOf is nil where there is none.
func allOf(each []*jwtauthnv3.JwtRequirement) *jwtauthnv3.JwtRequirement {
	switch len(each) {
	case 0:
		return nil
	case 1:
		return each[0]
	}
	return &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_RequiresAll{
		RequiresAll: &jwtauthnv3.JwtRequirementAndList{Requirements: each},
	}}
}
