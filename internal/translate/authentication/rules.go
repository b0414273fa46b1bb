// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Envoy has requirements that a missing token satisfies, but they take a token of another policy's provider with the
// same issuer for good, and ignore a bad token besides a good one. So whether there is a token at all is asked in a
// rule's match, and one that is there is required to be good.

// rulesOf a set of policies that a request must satisfy together.
func rulesOf(set string, all []model.Authentication) []*jwtauthnv3.RequirementRule {
	var required []*jwtauthnv3.JwtRequirement
	var optional []model.Authentication
	combinations := 1
	for _, p := range all {
		switch {
		case p.Invalid:
			return []*jwtauthnv3.RequirementRule{refuse(asks(set))}
		case p.Tokens == nil:
			continue
		case p.Tokens.Optional:
			optional = append(optional, p)
			combinations *= len(found(p)) + 1
		default:
			required = append(required, goodToken(p))
		}
		if combinations > model.MostRulesOfTokens {
			return []*jwtauthnv3.RequirementRule{refuse(asks(set))}
		}
	}
	return choices([]*routev3.HeaderMatcher{asks(set)}, required, optional)
}

// choices are a rule for each way in which tokens may be there that policies don't require; the last is that there is
// none.
func choices(
	when []*routev3.HeaderMatcher, needs []*jwtauthnv3.JwtRequirement, optional []model.Authentication,
) (out []*jwtauthnv3.RequirementRule) {
	if len(optional) == 0 {
		return []*jwtauthnv3.RequirementRule{rule(allOf(needs), when...)}
	}
	first, rest := optional[0], optional[1:]
	for _, there := range found(first) {
		out = append(out, choices(append(slices.Clip(when), there), append(slices.Clip(needs), goodToken(first)), rest)...)
	}
	return append(out, choices(when, append(slices.Clip(needs), noToken(first)), rest)...)
}

// found are the conditions any of which holds where there is a token for a policy, in whatever spelling.
func found(p model.Authentication) (out []*routev3.HeaderMatcher) {
	for _, provider := range p.Tokens.Providers {
		for _, h := range provider.Headers {
			out = append(out, header(h.Name, `(?i)`+anyBytes+word(h.Prefix)+anyBytes))
		}
		for _, name := range provider.Params {
			out = append(out, header(":path", param(`[?&;]`, spelled(name))))
		}
		for _, name := range provider.Cookies {
			out = append(out, header("cookie", `(?:`+anyBytes+`[;,\s])?`+cookie(name)))
		}
	}
	return out
}

// anyBytes of a header, which needn't be UTF-8, but a dot stands for UTF-8 only.
const anyBytes = `\C*`

// word that is before a token, without spaces: schemes are the same in any case.
func word(prefix string) string { return regexp.QuoteMeta(strings.TrimSpace(prefix)) }

// param is a path with a parameter behind some character.
func param(behind, name string) string {
	return anyBytes + behind + name + `(?:[=&;]` + anyBytes + `)?`
}

func cookie(name string) string { return regexp.QuoteMeta(name) + `\s*=` + anyBytes }

// spelled is a name each of whose characters may be escaped.
func spelled(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		fmt.Fprintf(&b, `(?:\x%02x|(?i:%%%02x))`, c, c)
	}
	return b.String()
}

// asks holds for requests whose table asks for a set; of "" for those that ask for any.
func asks(set string) *routev3.HeaderMatcher {
	if set == "" {
		return &routev3.HeaderMatcher{
			Name:                 names.HeaderAuthentication,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}
	}
	return &routev3.HeaderMatcher{
		Name: names.HeaderAuthentication,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: set},
		}},
	}
}

func header(name, expression string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}},
		}},
	}
}

func rule(requires *jwtauthnv3.JwtRequirement, when ...*routev3.HeaderMatcher) *jwtauthnv3.RequirementRule {
	out := &jwtauthnv3.RequirementRule{Match: &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_Prefix{}, Headers: when, // whatever the path
	}}
	if requires != nil {
		out.RequirementType = &jwtauthnv3.RequirementRule_Requires{Requires: requires}
	}
	return out
}

// refuse what all conditions hold for.
func refuse(when ...*routev3.HeaderMatcher) *jwtauthnv3.RequirementRule {
	return rule(needs(providerNone), when...)
}
