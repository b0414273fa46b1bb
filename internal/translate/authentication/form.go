// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"regexp"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Form is the filter that refuses requests whose tokens can be read in two ways, before Tokens reads them in one: that
// looks at one token in a query and in cookies, at those in a header that are written as the policy has it, and the
// application may look at others. It sees a header that comes several times as one list, as Tokens does not (package
// bootstrap).
func Form(a model.Authentications) *httprbacv3.RBAC {
	policies := byName(a)
	refused := map[string]*rbacv3.Policy{}
	for _, set := range a.Sets {
		var odd []*rbacv3.Principal
		for _, name := range set {
			if p := policies[name]; p.Tokens != nil {
				odd = append(odd, oddities(*p.Tokens)...)
			}
		}
		if len(odd) == 0 {
			continue
		}
		name := model.AuthenticationSet(set)
		refused["ambiguous token for "+name] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Header{Header: asks(name)}}},
			Principals:  odd,
		}
	}
	if len(refused) == 0 {
		return &httprbacv3.RBAC{}
	}
	return &httprbacv3.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: refused}}
}

// oddities are ways to carry a token any of which is refused: twice in a header, a query or in cookies, in a header
// behind something else, as the credentials of another scheme are, in a parameter whose name is escaped, or that only
// some applications take for one.
func oddities(t model.Tokens) (out []*rbacv3.Principal) {
	for _, provider := range t.Providers {
		for _, c := range provider.Claims {
			out = append(out, spelledWith(c.Header)...)
		}
		for _, h := range provider.Headers {
			out = append(out, spelledWith(h.Name)...)
			if w := word(h.Prefix); w != "" {
				out = append(out, has(header(h.Name, `(?i)`+anyBytes+w+anyBytes+`[,\s]`+anyBytes+w+anyBytes)),
					butNot(has(header(h.Name, `(?i)`+anyBytes+w+anyBytes)), has(header(h.Name, `(?i)\s*`+w+anyBytes))))
			}
		}
		for _, name := range provider.Params {
			plain, any := regexp.QuoteMeta(name), spelled(name)
			out = append(out,
				butNot(has(header(":path", param(`[?&;]`, any))), has(header(":path", param(`[?&;]`, plain)))),
				has(header(":path", param(`;`, any))),
				has(header(":path", anyBytes+`[?&;]`+any+`(?:[=&;]`+anyBytes+`)?[&;]`+any+`(?:[=&;]`+anyBytes+`)?`)),
			)
		}
		for _, name := range provider.Cookies {
			out = append(out, has(header("cookie", `(?:`+anyBytes+`[;,\s])?`+cookie(name)+`[;,\s]`+cookie(name))))
		}
	}
	return out
}

// spelledWith other separators, a header with a token or a claim is what some applications read, and nobody has
// verified.
func spelledWith(header string) (out []*rbacv3.Principal) {
	for _, name := range model.OtherSpellings(header) {
		out = append(out, has(&routev3.HeaderMatcher{
			Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}))
	}
	return out
}

func has(h *routev3.HeaderMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: h}}
}

func butNot(is, isNot *rbacv3.Principal) *rbacv3.Principal { return envoy.AllOf(is, envoy.Not(isNot)) }
