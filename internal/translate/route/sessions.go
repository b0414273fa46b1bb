// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiestatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Session persistence is that of GEP-1619: an answer names the endpoint that gave it, and the caller brings the name
// back. Envoy takes it for a wish among the endpoints of the cluster that it has chosen already: a name that is made up
// leads nowhere else, and where the endpoint is gone, another one is chosen and named.

// Names begin so of a session's cookie or header where none is given.
const (
	sessionCookie = "fairway-session"
	sessionHeader = "x-fairway-session"
	// splitCookie ends the name of a cookie by which a caller stays with a backend among several.
	splitCookie = "-backend"
)

// scopeOf tells apart what sessions are of, or with.
func scopeOf(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:4])
}

// sessionOf a rule is kept for requests that the rule takes, and for no others.
func sessionOf(route *routev3.Route, r model.Rule) error {
	if route.GetTypedPerFilterConfig()[filterSession] != nil {
		return nil // its one way leads outside; see outwards
	}
	name, err := sessionName(*r.SessionPersistence, routeName(r))
	if err != nil {
		return err
	}
	config, err := sessionState(*r.SessionPersistence, name, cookiePath(r.Match))
	if err != nil {
		return err
	}
	route.TypedPerFilterConfig = merge(route.TypedPerFilterConfig, config)
	return nil
}

// stay are routes to one backend each, for callers that a rule's split has sent there before: that they bring back
// which it was goes before its weights. A header can't say so besides the endpoint, and there are none then.
func (b *routeBuilder) stay(split *routev3.Route, r model.Rule) ([]*routev3.Route, error) {
	weighted, s := split.GetRoute().GetWeightedClusters(), r.SessionPersistence
	if weighted == nil || s == nil || s.Header {
		return nil, nil
	}
	name, err := sessionName(*s, routeName(r))
	if err != nil {
		return nil, err
	}
	name += splitCookie
	attributes := "; Path=" + cookiePath(r.Match) + "; HttpOnly"
	if lifetime := positive(&s.CookieLifetime); lifetime > 0 {
		attributes = fmt.Sprintf("; Max-Age=%d", int64(lifetime.Seconds())) + attributes
	}
	for _, c := range weighted.GetClusters() {
		if c.GetName() != clusterInvalid {
			c.ResponseHeadersToAdd = append(c.ResponseHeadersToAdd, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: "set-cookie", Value: escape(name) + "=" + scopeOf(c.GetName()) + attributes},
				AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
			})
		}
	}
	var out []*routev3.Route
	for _, backend := range r.Backends {
		if backend.Weight == 0 || backend.Invalid {
			continue
		}
		match := proto.Clone(split.GetMatch()).(*routev3.RouteMatch)
		match.Cookies = []*routev3.CookieMatcher{{Name: name, StringMatch: exact(scopeOf(clusterTo(backend)))}}
		only := r
		only.Backends = []model.Backend{backend}
		routes, err := b.ruleRoutes(only, match)
		if err != nil {
			return nil, err
		}
		out = append(out, routes...)
	}
	return out, nil
}

// sessionWith a backend is as its owner has it, wherever requests come from: the cookie is for all paths.
func sessionWith(to model.ServicePort, s *model.SessionPersistence) (map[string]*anypb.Any, error) {
	if s == nil {
		return nil, nil
	}
	name, err := sessionName(*s, nameOf(to))
	if err != nil {
		return nil, err
	}
	return sessionState(*s, name, "/")
}

func sessionName(s model.SessionPersistence, scope string) (string, error) {
	if s.Name != "" && !httpguts.ValidHeaderFieldName(s.Name) {
		return "", fmt.Errorf("sessionName: %q is not a valid name of a cookie or header", s.Name)
	}
	if s.Header && slices.Contains(framing, strings.ToLower(s.Name)) {
		return "", fmt.Errorf("sessionName: header %q can't be set: only the proxy may set it", s.Name)
	}
	kind := sessionCookie
	if s.Header {
		kind = sessionHeader
	}
	return cmp.Or(s.Name, kind+"-"+scopeOf(scope)), nil
}

// sessionState configures the filter that does nothing otherwise.
func sessionState(s model.SessionPersistence, name, at string) (map[string]*anypb.Any, error) {
	extension := "envoy.http.stateful_session.cookie"
	var state envoy.Message = &cookiestatev3.CookieBasedSessionState{
		Cookie: &httpv3.Cookie{Name: name, Path: at, Ttl: envoy.Duration(positive(&s.CookieLifetime))},
	}
	if s.Header {
		extension, state = "envoy.http.stateful_session.header", &headerstatev3.HeaderBasedSessionState{Name: name}
	}
	if err := envoy.Check(state); err != nil {
		return nil, err
	}
	return map[string]*anypb.Any{filterSession: envoy.Any(&sessionv3.StatefulSessionPerRoute{
		Override: &sessionv3.StatefulSessionPerRoute_StatefulSession{
			StatefulSession: &sessionv3.StatefulSession{SessionState: envoy.Extension(extension, state)},
		},
	})}, nil
}

// cookiePath is the path below which clients bring a cookie back: that of the match, where it is one, and where it can
// be said in a cookie.
func cookiePath(m model.Match) string {
	if m.Path == nil || m.Path.Type == model.MatchRegex || !strings.HasPrefix(m.Path.Value, "/") {
		return "/"
	}
	for _, c := range []byte(m.Path.Value) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`;,"\%`, c) >= 0 {
			return "/"
		}
	}
	return cmp.Or(strings.TrimRight(m.Path.Value, "/"), "/")
}
