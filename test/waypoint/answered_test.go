// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/model"
)

// answering are tables that have a waypoint answer by itself, each with and without what comes before.
func answering() map[string]model.RouteTable {
	ask := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: time.Second}
	other, refused, open := ask, ask, ask
	other.Service, refused.Refused, open.Refused, open.Open = webV2, true, true, true
	with := func(f ...model.Filter) []*model.Rule {
		return pointers([]model.Rule{rule(below("/"), f, to(webV1, 1))})
	}
	cors := &model.CORS{AllowOrigins: []string{"http://a.example"}, AllowMethods: []string{"PUT"}}
	teapot := model.Abort{Status: http.StatusTeapot, Percent: 100}
	asking := func(a ...model.ExternalAuth) model.RouteTable {
		return model.RouteTable{Guards: []model.Guard{{Asked: a}}, Default: with()}
	}
	limited := func(closed bool, e ...model.LimitEntry) model.Requests {
		l := &model.GlobalLimit{Invalid: true, Closed: closed, Domain: "d", Timeout: time.Second}
		if len(e) > 0 {
			l.Descriptors = append(l.Descriptors, e)
		}
		return model.Requests{GlobalLimit: l}
	}
	return map[string]model.RouteTable{
		"nothing": {Default: with()},
		"no rule": {Default: []*model.Rule{}},
		"consumer's": {Callers: []model.CallerRules{{
			Namespace: "front", Rules: pointers([]model.Rule{rule(below("/mine"), nil, to(webV1, 1))}),
		}}},
		"redirect": {Default: with(redirect(model.Redirect{Hostname: "elsewhere", StatusCode: http.StatusFound})...)},
		"invalid":  {Default: pointers([]model.Rule{{Source: rule(model.Match{}, nil).Source, Invalid: true}})},
		"cors":     {Default: with(model.Filter{CORS: cors})},
		"cors, and an extension that can't be used": {
			Default: with(model.Filter{CORS: cors}, model.Filter{Extension: &model.Extension{Name: "a", Refused: true}}),
		},
		"extension":              {Default: with(model.Filter{Extension: &model.Extension{Name: "a", Invalid: true}})},
		"unasked":                {Default: with(model.Filter{ExternalAuth: &refused})},
		"two asked":              asking(ask, other),
		"none asked":             asking(refused),
		"open":                   asking(open),
		"fault":                  {Default: with(), Requests: model.Requests{Abort: &teapot}},
		"no share":               {Default: with(), Requests: model.Requests{Abort: &model.Abort{Status: http.StatusTeapot}}},
		"limited":                {Default: with(), Requests: limited(true, model.LimitEntry{Key: "a", Value: "b"})},
		"limited by a header":    {Default: with(), Requests: limited(true, model.LimitEntry{Key: "a", Header: "Origin"})},
		"limited by who it is":   {Default: with(), Requests: limited(true, model.LimitEntry{Key: "a"})},
		"limited by nobody, all": {Default: with(), Requests: limited(false, model.LimitEntry{Key: "a"})},
		"limited by nothing":     {Default: with(), Requests: limited(true)},
		"limited by room": {Default: with(), Requests: model.Requests{
			LocalLimit: &model.LocalLimit{Requests: 1000, Unit: time.Second}, MaxBytes: 1 << 10,
		}},
	}
}

// TestAnswersAreExplained: what a waypoint answers by itself is what is explained, and so is what comes before that, of
// tokens and their policies.
func TestAnswersAreExplained(t *testing.T) {
	s := newShop(t)
	issuer := newIssuer(t, "https://login.example", "one", jose.ES256)
	needed := byTokens("needed", false, issuer.provider(t))
	optional := byTokens("optional", true, issuer.provider(t))
	invalid := model.Authentication{Policy: model.PolicyName{Namespace: "shop", Name: "invalid"}, Invalid: true}
	known := model.Authentications{
		Policies: []model.Authentication{invalid, needed, optional},
		Sets:     [][]model.PolicyName{{invalid.Policy}, {needed.Policy}, {optional.Policy}},
	}
	get := func(method, path string, headers ...string) explain.Request {
		q := explain.Request{Method: method, Host: "web", Path: path, Headers: http.Header{}}
		for n := 0; n < len(headers); n += 2 {
			q.Headers[headers[n]] = append(q.Headers[headers[n]], headers[n+1])
		}
		return q
	}
	const origin, asks = "origin", "access-control-request-method"
	requests := []explain.Request{
		get("GET", "/"), get("GET", "/x/%2e%2e;/y"), get("GET", "/", "authorization", "Basic x"),
		get("GET", "/", "authorization", "Bearer "+issuer.token(nil)),
		get("GET", "/", "authorization", "Bearer x", "authorization", "Bearer y"),
		get("OPTIONS", "/", origin, "http://a.example", asks, "PUT"),
		get("OPTIONS", "/", origin, "http://b.example", asks, "PUT"),
		get("OPTIONS", "/", origin, "http://a.example"), get("OPTIONS", "/", asks, "PUT"),
		get("OPTIONS", "/", "Origin", "http://a.example", "Access-Control-Request-Method", ""),
	}
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	u := tokens(t, known)
	s.apply(u...)
	s.acknowledged(u...)
	count := map[int]int{}
	unknown := model.PolicyName{Namespace: "shop", Name: "unknown"}
	for _, policies := range [][]model.PolicyName{
		nil, {needed.Policy}, {optional.Policy}, {invalid.Policy}, {unknown},
	} {
		for name, table := range answering() {
			table.Port, table.Protocol = web, model.ProtocolHTTP
			if policies != nil {
				guard := model.Guard{Authentication: policies}
				if len(table.Guards) > 0 {
					guard.Asked = table.Guards[0].Asked
				}
				table.Guards = []model.Guard{guard}
			}
			for r := range table.Default {
				for b := range table.Default[r].Backends {
					table.Default[r].Backends[b].Guards = table.Guards
				}
			}
			u := s.tableOf(table)
			s.apply(u)
			s.acknowledged(u)
			for _, q := range requests {
				a := explain.AtTable(trustDomain, table, known, clientID, q)
				count[agrees(t, http1Refusals, a, q, c.send(wire(q)), name, policies)]++
			}
		}
	}
	t.Log(count)
	for _, status := range []int{0, 200, 302, 400, 401, 403, 404, 418, 500, 503} {
		require.NotZero(t, count[status], status)
	}
}
