// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/http"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// Request is what a caller asks for, as it is sent.
type Request struct {
	Method, Host string
	// Path, with the query if there is one.
	Path    string
	Headers http.Header
}

// sentBy a caller is the request as it is sent, by it as a waypoint takes it in.
func (q Request) sentBy(identity string) route.Asked {
	return route.Asked{Identity: identity, Method: q.Method, Host: q.Host, Path: q.Path, Headers: q.Headers}
}

func (q Request) by(identity string) *route.Asked { return new(q.sentBy(identity).Arrived()) }

// truth is whether something matches; unknown is more than no.
type truth int

const (
	no truth = iota
	unknown
	yes
)

func isFor(p model.AccessPolicy, port uint16) bool {
	return p.Ports == nil || slices.Contains(p.Ports, port)
}

// match finds the rule of a policy that matches, or that may.
func match(p model.AccessPolicy, c Caller) (rule string, matches truth) {
	for _, r := range p.Rules {
		if m := matchRule(r, p.Deny, c); m > matches {
			rule, matches = r.Label(), m
		}
	}
	return rule, matches
}

func matchRule(r model.AccessRule, deny bool, c Caller) truth {
	if r.Ports != nil && !slices.Contains(r.Ports, c.port) {
		return no
	}
	from := func(s model.AccessSource) bool { return s.Is(c.identity) }
	if r.Sources != nil && !slices.ContainsFunc(r.Sources, from) {
		return no
	}
	switch {
	case r.Request == nil:
		return yes
	case len(r.Request.Claims) > 0 && c.claims == no:
		return no
	case c.request == nil, r.Request.CEL != "":
		return unknown
	}
	known := *r.Request
	known.Headers = slices.DeleteFunc(slices.Clone(known.Headers), c.guesses)
	if c.request.Host == "" {
		known.Hosts = nil
	}
	switch {
	case !route.GuardTakes(known, deny, *c.request):
		return no
	case len(known.Headers) < len(r.Request.Headers), len(known.Hosts) < len(r.Request.Hosts), len(r.Request.Claims) > 0:
		return unknown
	}
	return yes
}

// guesses tells whether a header is not known here: somebody may have changed it on the way, or the proxy gives it a
// value. Nobody changes the host, which may not have been said.
func (c Caller) guesses(h model.AccessHeader) bool {
	if strings.EqualFold(h.Name, "host") {
		return c.request != nil && c.request.Host == ""
	}
	return c.changed || h.Value != nil && c.request != nil && route.OfProxy(h.Name, c.sent)
}
