// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// This file asks what the others make, as Envoy does, for those who explain what becomes of a request.

// Asked is a request as a waypoint sees it.
type Asked struct {
	// Identity of the caller.
	Identity     string
	Method, Host string
	// Path with the query.
	Path    string
	Headers http.Header
}

// Has tells whether any of the values of a header is what a matcher means.
func (q Asked) Has(h *routev3.HeaderMatcher) bool { return has(h, q.header(h.GetName())) }

// GuardTakes tells whether a guard takes a request for one that a rule means, but for an expression in CEL and claims.
func GuardTakes(r model.AccessRequest, deny bool, q Asked) bool {
	r.Claims = nil
	return q.Is(envoy.AllOf(requestOf(r, nil, deny)...))
}

func ruleNamed(t model.RouteTable, name string) *model.Rule {
	named := func(r *model.Rule) bool { return routeName(*r) == name }
	for _, c := range t.Callers {
		if n := slices.IndexFunc(c.Rules, named); n >= 0 {
			return c.Rules[n]
		}
	}
	if n := slices.IndexFunc(t.Default, named); n >= 0 {
		return t.Default[n]
	}
	return nil
}

// Arrived is the request as a waypoint takes it in: with dot segments resolved, slashes merged, and escapes undone of
// what needs none (manager.go of package waypoint); without what only the waypoint may say, and with what it says.
func (q Asked) Arrived() Asked {
	q.Headers = arrived(q.Headers)
	path := q.plain()
	rest := q.Path[len(path):]
	path = dotsWithParameters.ReplaceAllString(path, "$1")
	var b strings.Builder
	for n := 0; n < len(path); n++ {
		c := path[n]
		if c == '%' && n+2 < len(path) {
			if code, err := strconv.ParseUint(path[n+1:n+3], 16, 8); err == nil && unreserved(byte(code)) {
				c = byte(code)
				n += 2
			}
		}
		if c == '\\' {
			c = '/'
		}
		b.WriteByte(c)
	}
	var out []string
	parts := strings.Split(strings.TrimPrefix(b.String(), "/"), "/")
	for n, p := range parts {
		last := n == len(parts)-1
		switch p {
		case ".", "..":
			if p == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, p)
		}
	}
	path = "/" + strings.Join(out, "/")
	if merged := slashes.ReplaceAllString(path, "/"); merged == "/" && len(path) > 1 {
		path = "//" // Envoy leaves one where there is nothing else, and one at the end
	} else {
		path = merged
	}
	q.Path = path + rest
	return q
}

// OfProxy tells whether a header has a value that the proxy gives it, on a request that came with some.
func OfProxy(name string, sent http.Header) bool {
	switch strings.ToLower(name) {
	case headerForwardedFor:
		return true
	case headerRequestID:
		return Asked{Headers: sent}.Says(headerRequestID) == ""
	}
	return false
}

// arrived are headers as the connection manager has them. A value that nobody knows is empty.
func arrived(sent http.Header) http.Header {
	out := http.Header{}
	for name, values := range sent {
		if lower := strings.ToLower(name); !keptOut(lower) && lower != HeaderPort && lower != names.HeaderAuthentication {
			out[name] = values
		}
	}
	for name, value := range map[string]string{headerForwardedProto: "http", headerRequestID: "", headerForwardedFor: ""} {
		if len((Asked{Headers: out}).header(name)) == 0 {
			out[name] = []string{value}
		}
	}
	return out
}

// Carries tells whether the request has a header, which may be empty.
func (q Asked) Carries(header string) bool { return len(q.header(matchedHeader(header))) > 0 }

// Says is all that a header says; "" if it isn't there, or says nothing.
func (q Asked) Says(header string) string { return strings.Join(q.header(header), "") }

// dotsWithParameters are dot segments to Envoy, too, as long as they are behind a slash and no dot is escaped.
var dotsWithParameters = regexp.MustCompile(`(/\.\.?);[^/]*`)

var slashes = regexp.MustCompile(`/+`)

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// plain is the path without the query and what may stand behind it.
func (q Asked) plain() string {
	path, _, _ := strings.Cut(q.Path, "#")
	path, _, _ = strings.Cut(path, "?")
	return path
}

// header is what Envoy has under a name, none if it isn't there.
func (q Asked) header(name string) (all []string) {
	switch name {
	case ":method":
		return []string{q.Method}
	case ":authority":
		return []string{q.Host}
	case ":path":
		return []string{q.Path}
	}
	for _, n := range sortedNames(q.Headers) {
		if !strings.EqualFold(n, name) {
			continue
		}
		for _, v := range q.Headers[n] {
			all = append(all, strings.Trim(v, " \t"))
		}
	}
	return inOnePiece(name, all)
}

func sortedNames(h http.Header) (out []string) {
	for name := range h {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Is tells whether the request is what a matcher of Envoy's filter RBAC means, of those that requestOf makes.
func (q Asked) Is(p *rbacv3.Principal) bool {
	switch id := p.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return id.Any
	case *rbacv3.Principal_NotId:
		return !q.Is(id.NotId)
	case *rbacv3.Principal_AndIds:
		return !slices.ContainsFunc(id.AndIds.GetIds(), func(p *rbacv3.Principal) bool { return !q.Is(p) })
	case *rbacv3.Principal_OrIds:
		return slices.ContainsFunc(id.OrIds.GetIds(), q.Is)
	case *rbacv3.Principal_Header:
		// Policies see what comes several times as one list (package bootstrap).
		if all := q.header(id.Header.GetName()); len(all) > 0 {
			return has(id.Header, []string{strings.Join(all, ",")})
		}
		return has(id.Header, nil)
	case *rbacv3.Principal_UrlPath:
		return matchesString(id.UrlPath.GetPath(), q.plain())
	case *rbacv3.Principal_FilterState:
		return id.FilterState.GetKey() == names.FilterStateSource && q.Identity != "" &&
			matchesString(id.FilterState.GetStringMatch(), q.Identity)
	}
	return false
}

func has(h *routev3.HeaderMatcher, values []string) bool {
	if _, present := h.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); present {
		return len(values) > 0
	}
	return slices.ContainsFunc(values, func(v string) bool {
		return matchesString(h.GetStringMatch(), v) != h.GetInvertMatch()
	})
}

// matches asks what routeMatch makes.
func (q Asked) matches(m *routev3.RouteMatch) bool {
	if len(m.GetCookies()) > 0 {
		return false // one of the rule's backends with which a session stays; the rule itself comes after
	}
	path := q.plain()
	switch by := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		if path != by.Path {
			return false
		}
	case *routev3.RouteMatch_Prefix:
		if !strings.HasPrefix(path, by.Prefix) {
			return false
		}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		if rest, ok := strings.CutPrefix(path, by.PathSeparatedPrefix); !ok || rest != "" && rest[0] != '/' {
			return false
		}
	case *routev3.RouteMatch_SafeRegex:
		if !matchesRegex(by.SafeRegex, path) {
			return false
		}
	default:
		return false
	}
	for _, s := range m.GetFilterState() {
		if s.GetKey() != names.FilterStateSource || !matchesString(s.GetStringMatch(), q.Identity) {
			return false
		}
	}
	lacks := func(h *routev3.HeaderMatcher) bool { return !has(h, q.header(h.GetName())) } // any of several does
	return !slices.ContainsFunc(m.GetHeaders(), lacks) &&
		!slices.ContainsFunc(m.GetQueryParameters(), func(p *routev3.QueryParameterMatcher) bool { return !q.asks(p) })
}

// asks compares the first of the query's parameters of a name. Envoy undoes no escapes.
func (q Asked) asks(p *routev3.QueryParameterMatcher) bool {
	path, _, _ := strings.Cut(q.Path, "#")
	_, query, _ := strings.Cut(path, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(pair, "="); name == p.GetName() {
			return matchesString(p.GetStringMatch(), value)
		}
	}
	return false
}

func matchesString(m *matcherv3.StringMatcher, s string) bool {
	switch by := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return s == by.Exact
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(s, by.Prefix)
	case *matcherv3.StringMatcher_SafeRegex:
		return matchesRegex(by.SafeRegex, s)
	}
	return false
}

// matchesRegex compares the whole string.
func matchesRegex(m *matcherv3.RegexMatcher, s string) bool {
	re, err := regexp.Compile(`\A(?:` + goSyntax(m.GetRegex()) + `)\z`)
	return err == nil && re.MatchString(s)
}

// goSyntax is an expression of RE2 in Go's, which has no name for any byte. Go takes what is no UTF-8 byte by byte, so
// any character is one.
func goSyntax(re2 string) string {
	var b strings.Builder
	for n := 0; n < len(re2); n++ {
		switch {
		case re2[n] != '\\' || n+1 == len(re2):
			b.WriteByte(re2[n])
		case re2[n+1] == 'C':
			b.WriteString(`(?s:.)`)
			n++
		default:
			b.WriteString(re2[n : n+2])
			n++
		}
	}
	return b.String()
}
