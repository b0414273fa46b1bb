// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/model"
)

// pathChange is a change of path in Envoy's terms; exactly one field is set, or none where nothing changes.
type pathChange struct {
	full   string
	prefix string
	regex  *matcherv3.RegexMatchAndSubstitute
}

// changePath turns a replacement into Envoy's terms. A prefix is replaced by path element, so that of /foo/bar with the
// prefix /foo always /bar is kept, whatever trailing slashes prefix and replacement have.
func changePath(match *model.StringMatch, c *model.PathChange) (pathChange, error) {
	switch {
	case c == nil:
		return pathChange{}, nil
	case !isPath(c.Full) || !isPath(c.Prefix):
		return pathChange{}, errors.New("a path must begin with a slash and must not contain spaces, control characters or #")
	case c.Full != nil:
		if *c.Full == "" {
			return pathChange{full: "/"}, nil
		}
		return pathChange{full: *c.Full}, nil
	case c.Prefix == nil:
		return pathChange{}, nil
	case match != nil && match.Type != model.MatchPrefix:
		return pathChange{}, fmt.Errorf("ReplacePrefixMatch requires a path match of type PathPrefix, not %s", match.Type)
	}
	prefix, replacement := "", trimPrefix(*c.Prefix)
	if match != nil {
		prefix = trimPrefix(match.Value)
	}
	switch {
	case prefix == "" && replacement == "":
		return pathChange{}, nil
	case prefix == "": // the match is "/", whose slash the replacement must bring back
		return pathChange{prefix: replacement + "/"}, nil
	case replacement == "": // nothing may be left but a slash, and there must be one
		re, err := regex("^" + regexp.QuoteMeta(prefix) + "/?")
		return pathChange{regex: &matcherv3.RegexMatchAndSubstitute{Pattern: re, Substitution: "/"}}, err
	default:
		return pathChange{prefix: replacement}, nil
	}
}

// isPath tells whether a path can be sent, if there is one. An empty one is a slash. Anything else could be read as
// more than a path: as the end of the request's first line, or as a part of the host where it is redirected to.
func isPath(p *string) bool {
	other := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }
	return p == nil || *p == "" || (*p)[0] == '/' && !strings.ContainsFunc(*p, other)
}

// rewrite changes the request's host and path. The host is one more change of a header: of several, the last one
// stands.
func rewrite(a *routev3.RouteAction, request *headerOps, match *model.StringMatch, rw model.Rewrite) error {
	if rw.Hostname != "" {
		request.host = rw.Hostname
	}
	c, err := changePath(match, rw.Path)
	if err != nil {
		return err
	}
	a.PathRewrite, a.PrefixRewrite, a.RegexRewrite = escape(c.full), c.prefix, c.regex
	return nil
}

// redirectCodes by status; Gateway API's default is 302.
var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	0:                            routev3.RedirectAction_FOUND,
	http.StatusMovedPermanently:  routev3.RedirectAction_MOVED_PERMANENTLY,
	http.StatusFound:             routev3.RedirectAction_FOUND,
	http.StatusSeeOther:          routev3.RedirectAction_SEE_OTHER,
	http.StatusTemporaryRedirect: routev3.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// hostWithPort matches an authority that names a port.
const hostWithPort = ".+:[0-9]+"

// redirects complete a route. A port that goes without saying (80 for http, 443 for https) is left out, as Gateway API
// wishes. Envoy keeps the port of the request's host then, so requests that name one get a route of their own, before
// the other, whose Location names the port.
func redirects(
	route *routev3.Route, match *model.StringMatch, rd model.Redirect, servicePort uint16,
) ([]*routev3.Route, error) {
	code, ok := redirectCodes[rd.StatusCode]
	if !ok {
		return nil, fmt.Errorf("redirect status %d is not supported", rd.StatusCode)
	}
	c, err := changePath(match, rd.Path)
	if err != nil {
		return nil, err
	}
	action := &routev3.RedirectAction{HostRedirect: rd.Hostname, ResponseCode: code}
	if rd.Scheme != "" {
		action.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: strings.ToLower(rd.Scheme)}
	}
	switch {
	case c.full != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: c.full}
	case c.prefix != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: c.prefix}
	case c.regex != nil:
		action.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: c.regex}
	}
	port, implied := redirectPort(rd, servicePort)
	if !implied {
		action.PortRedirect = uint32(port)
	}
	route.Action = &routev3.Route_Redirect{Redirect: action}
	if !implied || port == 0 || rd.Hostname != "" {
		return []*routev3.Route{route}, nil
	}
	named, ok := proto.Clone(route).(*routev3.Route)
	if !ok {
		return nil, errors.New("a route's copy is no route")
	}
	re, err := regex(hostWithPort)
	if err != nil {
		return nil, err
	}
	named.Match.Headers = append(named.Match.Headers, &routev3.HeaderMatcher{
		Name: ":authority",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: re},
		}},
	})
	named.GetRedirect().PortRedirect = uint32(port)
	return []*routev3.Route{named, route}, nil
}

// redirectPort is the port to redirect to, and whether the scheme implies it. Zero: the one that the request names.
func redirectPort(rd model.Redirect, servicePort uint16) (port uint16, implied bool) {
	wellKnown := map[string]uint16{"": 80, "http": 80, "https": 443}[strings.ToLower(rd.Scheme)]
	switch {
	case rd.Port != 0:
		port = rd.Port
	case rd.Scheme != "":
		port = wellKnown
	case rd.Hostname != "":
		port = servicePort
	}
	return port, port == 0 || port == wellKnown
}
