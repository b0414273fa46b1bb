// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"regexp"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What a request is can be read in more than one way (spelling.go). A rule that denies matches in every reading, a rule
// that allows only where there is but one: so whoever spells a request otherwise is refused, never let in.

// requestOf are the conditions of a rule on the request, all of which must hold. Claims are known by some policies.
func requestOf(r model.AccessRequest, known []model.PolicyName, deny bool) (all []*rbacv3.Principal) {
	if len(r.Methods) > 0 {
		all = append(all, headerMatches(":method", anyOf(r.Methods, regexp.QuoteMeta)))
	}
	if len(r.Paths) > 0 {
		all = append(all, pathsOf(r.Paths, deny))
	}
	if len(r.Hosts) > 0 {
		all = append(all, hostsOf(r.Hosts, deny))
	}
	if len(r.GRPC) > 0 {
		all = append(all, pathsOf(grpcPaths(r.GRPC), deny))
	}
	for _, h := range r.Headers {
		all = append(all, headerOf(h, deny))
	}
	for _, c := range r.Claims {
		all = append(all, claim(c, known))
	}
	return all
}

// anyOf is an expression for any of the values, whose own are made by a function.
func anyOf[T any](values []T, pattern func(T) string) string {
	all := make([]string, 0, len(values))
	for _, v := range values {
		all = append(all, pattern(v))
	}
	return strings.Join(all, "|")
}

// hostsOf matches the host with or without a port. Denied is also what some server takes for one of the hosts.
func hostsOf(hosts []string, deny bool) *rbacv3.Principal {
	any := `(?:` + anyOf(hosts, hostPattern) + `)`
	if !deny {
		return headerMatches(":authority", `(?i)`+any+`\.?(?::[0-9]*)?`)
	}
	return headerMatches(":authority", `(?i)(?:`+anyBytes+`@)?`+any+`\.*(?:[:,]`+anyBytes+`)?|`+anyBytes+`[%,]`+anyBytes)
}

// hostPattern is a host, or all below one.
func hostPattern(host string) string {
	if below, ok := strings.CutPrefix(host, "*."); ok {
		return `[^:/]+\.` + regexp.QuoteMeta(below)
	}
	return regexp.QuoteMeta(host)
}

func grpcPaths(methods []model.AccessGRPC) (out []model.StringMatch) {
	for _, m := range methods {
		if m.Method == "" {
			out = append(out, model.StringMatch{Type: model.MatchPrefix, Value: "/" + m.Service})
		} else {
			out = append(out, model.StringMatch{Type: model.MatchExact, Value: "/" + m.Service + "/" + m.Method})
		}
	}
	return out
}

// plainPath has one reading: no escapes but of what must be escaped and means nothing to servers, and no parameters.
const plainPath = `(?:[^%;\\]|%[^235]|%2[^5Ff]|%3[^Bb]|%5[^Cc])*`

// trailing is what some servers cut off: slashes, and parameters of nothing.
const trailing = `(?:` + anySlash + `|(?:;|%3[Bb])[^/]*)*`

// escapedTwice is a path that is another one to servers that undo escapes again.
const escapedTwice = `.*%25[0-9a-f]{2}.*`

// oddEscapes are of what only some servers undo, or take for something else: controls, what is no UTF-8, no escape.
const oddEscapes = `.*%(?:[01]|7[Ff]|[Cc][01]|[Ee]0%[89]|[Ff]0%8|[Ff][5-9A-Fa-f]|` +
	`[^0-9A-Fa-f]|[0-9A-Fa-f][^0-9A-Fa-f]|[0-9A-Fa-f]?$).*`

// notPlain has escapes and parameters of which nobody can tell whether an expression means them.
const notPlain = `.*(?:[;\\]|%2f|%3b|%5c).*`

// anyBytes of a header, which needn't be UTF-8, but a dot stands for UTF-8 only.
const anyBytes = `\C*`

// pathsOf matches the path without query. Denied is also what some server takes for one of the paths: in any case, with
// a slash at its end, escaped twice; and what climbs, for a rewrite may have made that of it.
func pathsOf(paths []model.StringMatch, deny bool) *rbacv3.Principal {
	if !deny {
		return envoy.AllOf(
			pathMatches(anyOf(paths, literalPath)), pathMatches(plainPath),
			envoy.Not(pathMatches(hiddenDots)), envoy.Not(pathMatches(oddEscapes)),
		)
	}
	odd := []string{hiddenDots, escapedTwice, oddEscapes}
	if slices.ContainsFunc(paths, func(p model.StringMatch) bool { return p.Type == model.MatchRegex }) {
		odd = append(odd, notPlain)
	}
	return pathMatches(`(?i)(?:` + strings.Join(odd, "|") + `|` + anyOf(paths, func(p model.StringMatch) string {
		if other := otherSpellings(&p); other != "" {
			return literalPath(p) + "|" + other + trailing
		}
		return literalPath(p) + `/*`
	}) + `)`)
}

// literalPath is an expression for a path as it is written; a prefix is of whole elements.
func literalPath(p model.StringMatch) string {
	switch p.Type {
	case model.MatchPrefix:
		return regexp.QuoteMeta(trimPrefix(p.Value)) + `(?:/.*)?`
	case model.MatchRegex:
		return `(?:` + p.Value + `)`
	case model.MatchExact:
	}
	return regexp.QuoteMeta(p.Value)
}

func pathMatches(expression string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: matching(expression)},
	}}}
}

func headerMatches(name, expression string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: matching(expression)},
	}}}
}

func matching(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: text(expression)},
	}}
}

// headerOf matches a header by all that it says. What comes several times is a list with commas, to servers and to
// Envoy (package bootstrap). A rule that denies matches with any of the values, one that allows with all of them; each
// may be the whole, too.
// Servers that know no hyphens (CGI, WSGI) take a name with underscores for the same, so all spellings count.
func headerOf(h model.AccessHeader, deny bool) *rbacv3.Principal {
	spellings := model.OtherSpellings(text(h.Name))
	if deny {
		var any []*rbacv3.Principal
		for _, name := range append([]string{headerName(h.Name)}, spellings...) {
			any = append(any, valueOf(name, h.Value, true))
		}
		return envoy.OneOf(any...)
	}
	all := []*rbacv3.Principal{valueOf(headerName(h.Name), h.Value, false)}
	for _, name := range spellings {
		all = append(all, envoy.Not(present(name)))
	}
	return envoy.AllOf(all...)
}

func valueOf(header string, v *model.StringMatch, deny bool) *rbacv3.Principal {
	if v == nil {
		return present(header)
	}
	one := `[ \t]*(?:` + valuePattern(*v, deny) + `)[ \t]*`
	switch {
	case !deny:
		return headerMatches(header, `(?s:`+one+`(?:,`+one+`)*)`)
	case v.Type == model.MatchRegex: // it may have dots, too
		matches := headerMatches(header, `(?s:(?:.*,)?`+one+`(?:,.*)?)`)
		return envoy.OneOf(matches, envoy.AllOf(present(header), envoy.Not(headerMatches(header, `(?s:.*)`))))
	}
	return headerMatches(header, `(?:`+anyBytes+`,)?`+one+`(?:,`+anyBytes+`)?`)
}

func present(header string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: &routev3.HeaderMatcher{
		Name: header, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}}}
}

// headerName is how Envoy calls a header.
func headerName(name string) string {
	if strings.EqualFold(name, "Host") {
		return ":authority"
	}
	return text(strings.ToLower(name))
}

// valuePattern is an expression for one value of a header.
func valuePattern(v model.StringMatch, deny bool) string {
	switch v.Type {
	case model.MatchPrefix:
		if deny {
			return regexp.QuoteMeta(v.Value) + anyBytes
		}
		return regexp.QuoteMeta(v.Value) + `[^,]*`
	case model.MatchRegex:
		return v.Value
	case model.MatchExact:
	}
	return regexp.QuoteMeta(v.Value)
}
