// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// One path has many spellings, and servers differ in which of them they take for the same. The connection manager
// settles what all agree on: dot segments are resolved, slashes merged, escapes of letters and digits undone. Of the
// rest nobody can tell what the server will make: an escaped slash is data to one server and a slash to another, and
// parameters belong to their path element here and are cut off there. Such paths pass as they are, except where it
// matters: a path that some server takes for one that a rule matches, and the waypoint doesn't, is refused, for it
// would go around the rule.

// Parts of regular expressions.
const (
	// anySlash is what some server takes for a slash.
	anySlash = `(?:/|%2[Ff]|%5[Cc])`
	// anyParameters of a path element, which some servers cut off.
	anyParameters = `(?:(?:;|%3[Bb])[^/]*)?`
	// between two path elements.
	between = `(?:` + anyParameters + anySlash + `)+`
	// hiddenDots is a path with a dot segment that was not resolved, because only some servers see one there.
	hiddenDots = `.*` + anySlash + `\.\.?(?:(?:;|%3[Bb]|` + anySlash + `).*)?`
)

// refuseHiddenDots answers for paths that climb where only the server sees it. No path needs that.
func refuseHiddenDots() *routev3.Route {
	return ambiguous("dots", &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: hiddenDots}},
	})
}

// matchable are the methods that a rule can ask for.
var matchable = []string{
	http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPatch,
	http.MethodPost, http.MethodPut, http.MethodTrace,
}

// refuseOddMethods answers for a method that differs from one of a rule's in case only. It is another one (RFC 9110,
// 9.1), so it would go around the rule, and some applications take it for the same. Envoy's HTTP/1 refuses it by
// itself.
func refuseOddMethods() *routev3.Route {
	method := func(expression string, invert bool) *routev3.HeaderMatcher {
		return &routev3.HeaderMatcher{
			Name: ":method", InvertMatch: invert,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}},
			}},
		}
	}
	return &routev3.Route{
		Name: names.AmbiguousRoutes + "method",
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
			Headers:       []*routev3.HeaderMatcher{method(`[^a-z]*`, true), method(`(?i)`+strings.Join(matchable, "|"), false)},
		},
		Action: answer(http.StatusBadRequest, "methods are case-sensitive: use capital letters"),
	}
}

// spelledOtherwise refuses the requests that go around a rule by another spelling of its path: all that the rule's
// match says besides the path holds for them, too.
func spelledOtherwise(r model.Rule, match *routev3.RouteMatch) ([]*routev3.Route, error) {
	pattern := otherSpellings(r.Match.Path)
	if pattern == "" {
		return nil, nil
	}
	re, err := regex(pattern)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	other, ok := proto.Clone(match).(*routev3.RouteMatch)
	if !ok {
		return nil, errors.New("a match's copy is no match")
	}
	other.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: re}
	// Looked at before the path is. Most paths have nothing to spell otherwise, and cost next to nothing.
	other.Headers = append([]*routev3.HeaderMatcher{{
		Name:        ":path",
		InvertMatch: true,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: `[^%;]*`}},
		}},
	}}, other.Headers...)
	return []*routev3.Route{ambiguous(routeName(r), other)}, nil
}

// ambiguous refuses requests whose path can be read in two ways.
func ambiguous(name string, match *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{
		Name:  names.AmbiguousRoutes + name,
		Match: match,
		Action: answer(http.StatusBadRequest,
			"the path is ambiguous: write it without escaped slashes, dots and parameters"),
	}
}

// otherSpellings matches the paths that some server takes for one that the match is for: the match's own spelling, too,
// so it comes after the match itself. It is empty where there is none: the prefix / matches all, and an expression says
// itself what it is for.
func otherSpellings(p *model.StringMatch) string {
	if p == nil || p.Type != model.MatchExact && trimPrefix(p.Value) == "" {
		return ""
	}
	var b strings.Builder
	for element := range strings.SplitSeq(strings.Trim(p.Value, "/"), "/") {
		b.WriteString(between)
		spell(&b, element)
	}
	switch {
	case p.Type == model.MatchPrefix:
		b.WriteString(`(?:(?:;|%3[Bb]|` + anySlash + `).*)?`)
	case p.Type != model.MatchExact:
		return ""
	case strings.HasSuffix(p.Value, "/") && p.Value != "/":
		b.WriteString(between + anyParameters)
	default:
		b.WriteString(anyParameters)
	}
	return b.String()
}

// spell matches a path element, each character as it is or escaped. Letters, digits and -._~ are never escaped any
// more.
func spell(b *strings.Builder, element string) {
	if plain, err := url.PathUnescape(element); err == nil {
		element = plain
	}
	for _, c := range []byte(element) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '~':
			b.WriteByte(c)
		case c == '.':
			b.WriteString(`\.`)
		case c <= ' ' || c >= 0x7f:
			fmt.Fprintf(b, "(?i:%%%02x)", c)
		default:
			fmt.Fprintf(b, `(?:\x%02x|(?i:%%%02x))`, c, c)
		}
	}
}
