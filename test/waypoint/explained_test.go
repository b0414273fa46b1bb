// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http/httpguts"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/model"
)

// explained makes requests at random, and what policies and routes say of them.
type explained struct{ *rand.Rand }

func (r explained) of(values ...string) string { return values[r.IntN(len(values))] }

func (r explained) kind(kinds ...model.MatchType) model.MatchType { return kinds[r.IntN(len(kinds))] }

func (r explained) request() *model.AccessRequest {
	out := &model.AccessRequest{}
	switch r.IntN(5) {
	case 0:
		out.Hosts = []string{r.of("web", "*.web.org", "a.web.org")}
	case 1:
		h := model.AccessHeader{Name: r.of("X-Tenant", "x-two-words", "Host", "x_under", "X-Tenant", "x-two-words", "Host",
			"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Client-Cert", "X-Request-Id", "X-Envoy-Tenant",
			"X-Fairway-Port")}
		if r.IntN(3) > 0 {
			kind := r.kind(model.MatchExact, model.MatchPrefix, model.MatchRegex)
			h.Value = &model.StringMatch{Type: kind, Value: r.of("good", "bad", "web")}
		}
		out.Headers = []model.AccessHeader{h}
	case 2:
		out.Methods = []string{r.of("GET", "POST")}
	case 3:
		out.GRPC = []model.AccessGRPC{{Service: "a", Method: r.of("", "b")}}
	default:
		kind := r.kind(model.MatchExact, model.MatchPrefix, model.MatchRegex)
		out.Paths = []model.StringMatch{{Type: kind, Value: r.of("/admin", "/a/b", "/a", "/ok")}}
	}
	return out
}

func (r explained) guards() []model.Guard {
	var all []model.AccessPolicy
	for n := range 1 + r.IntN(3) {
		p := accessPolicy(string(rune('a'+n)), r.IntN(2) == 0)
		for index := range 1 + r.IntN(2) {
			rule := fromAccount(r.of("", clientID, otherID), r.request())
			rule.Index = index
			p.Rules = append(p.Rules, rule)
		}
		all = append(all, p)
	}
	return onRequests(all...)
}

func (r explained) asked() explain.Request {
	method := r.of("GET", "GET", "GET", "GET", "GET", "POST", "POST", "POST", "get", "PURGE")
	q := explain.Request{Method: method, Headers: http.Header{}}
	q.Host = r.of("web", "WEB", "web.", "web..", "web:80", "web.:80", "other", "a.web.org", "a.web.org.", "web:", "xweb",
		"ann@web", "ann:pw@web", "@web", "web%2e", "web%", "web,other", "other,web", "web:80:80", "[::1]", "[::1]:80", "web/a", `web\a`,
		"web a", "web;a", "web_1", "w\xffb", "web?a", "web#a", "web|", "*.web.org", "web:x")
	q.Path = "/" + r.of("", "a", "a/b", "admin", "admin/", "ok", "a?x=1", "ok?x=2&x=1", "ok?y=1", "a;b/b", "A", "a%2fb",
		"admin?", "a?x=1%00", "a?%78=1", "ok?x=1&X=2", "ok?x=1;x=2", "ok?x", "ok?x=%31", "ok?x=1+", "ok??x=1", "ok?x=1?",
		"ok?x=1%2",
		"ok?&x=1", "ok?x=1#", "old/a", "old", "oldish", "old/?x=1", "old//a/../b")
	if r.IntN(3) == 0 {
		q.Path = "/" + strings.TrimLeft(spelling(r.Rand), "/")
	}
	for range r.IntN(3) {
		name := r.of("X-Tenant", "x_tenant", "X-Two-Words", "x_two-words", "x_two_words", "x_under", "x-under", "x-tenant",
			"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Client-Cert", "X-Request-Id", "X-Envoy-Tenant",
			"X-Fairway-Port")
		q.Headers[name] = append(q.Headers[name], r.of("good", "bad", "good, bad", " good", "goods", "", "good,", "g\xffd"))
	}
	return q
}

// wire is the request as it is sent.
func wire(q explain.Request) string {
	var b strings.Builder
	b.WriteString(q.Method + " " + q.Path + " HTTP/1.1\r\nHost: " + q.Host + "\r\nContent-Length: 0\r\n")
	for name, values := range q.Headers {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\r\n")
		}
	}
	return b.String() + "\r\n"
}

// http1Refusals are what may come of a request in HTTP/1.1 that the application's server takes for none.
var http1Refusals = []int{http.StatusBadRequest}

// agrees checks that what is explained of a request is what came of it. It returns the answer's status, 0 where it
// depends. The application's server may refuse what Envoy takes.
func agrees(t *testing.T, refusals []int, a explain.Answer, q explain.Request, got int, about ...any) int {
	t.Helper()
	want := a.Status
	switch a.Verdict {
	case explain.Depends:
		return 0
	case explain.Allowed:
		if want = http.StatusOK; slices.Contains(refusals, got) && applicationRefuses(q) {
			return got
		}
	case explain.Denied, explain.Answered:
		if want == 0 {
			require.NotEqual(t, http.StatusOK, got, "%+v: %q by %+v", a, wire(q), about)
			return 0
		}
	}
	if want != got {
		text, err := json.Marshal(about)
		require.NoError(t, err)
		require.Equal(t, want, got, "%+v: %q by %s", a, wire(q), text)
	}
	return got
}

// applicationRefuses tells whether the application's HTTP server takes a request for none, though Envoy doesn't.
func applicationRefuses(q explain.Request) bool {
	asked, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire(q))))
	return err != nil || !httpguts.ValidHostHeader(asked.Host) || strings.ContainsAny(asked.Host, "@/")
}

// TestExplainAgreesWithEnvoy: what `fairway explain` says of a request is what becomes of it, whatever its spelling,
// also where Envoy takes it for none.
func TestExplainAgreesWithEnvoy(t *testing.T) {
	s := newShop(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := explained{rand.New(rand.NewPCG(seed, 5))}
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	count := map[int]int{}
	for range 60 {
		table := model.RouteTable{
			Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Guards: r.guards(),
		}
		s.guard(table.Guards)
		for range 60 {
			q := r.asked()
			a := explain.AtTable(trustDomain, table, model.Authentications{}, clientID, q)
			got := c.send(wire(q))
			count[agrees(t, http1Refusals, a, q, got, seed, table.Guards)]++
		}
	}
	t.Log(count)
	require.Greater(t, min(count[200], count[403], count[400]), 200)
	require.Less(t, count[0], 60*60/4, "most is known")
}

// TestHeadersThatComeTwice: Envoy has some headers in one piece, and of others each by itself; what is explained goes
// by that. Rules look at each, policies at all.
func TestHeadersThatComeTwice(t *testing.T) {
	s := newShop(t)
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	named := func(name, value string) []model.NamedMatch {
		return []model.NamedMatch{{Name: name, StringMatch: model.StringMatch{Type: model.MatchExact, Value: value}}}
	}
	count := map[int]int{}
	for _, name := range []string{
		"accept", "accept-encoding", "accept-language", "access-control-request-headers", "access-control-request-method",
		"authorization", "cache-control", "content-encoding", "content-type", "cookie", "date", "etag", "forwarded", "from",
		"grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since", "if-none-match", "if-range",
		"if-unmodified-since", "origin", "pragma", "proxy-status", "range", "referer", "user-agent", "via", "x-b3-traceid",
		"x-client-trace-id", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-ot-span-context",
		"x-request-id", "x-tenant", "traceparent",
	} {
		t.Run(name, func(t *testing.T) {
			both := rule(below("/"), nil, to(webV1, 1))
			both.Match.Headers = named(name, "good,bad")
			one := rule(below("/"), nil, to(webV1, 1))
			one.Match.Headers = named(name, "good")
			one.Invalid, one.Backends = true, nil
			rules := []model.Rule{both, one}
			allow := &model.AccessRequest{Headers: []model.AccessHeader{{Name: name, Value: &model.StringMatch{
				Type: model.MatchExact, Value: "good",
			}}}}
			for _, guards := range [][]model.Guard{nil, onRequests(accessPolicy("a", false, fromAccount("", allow)))} {
				s.guard(guards, rules...)
				table := model.RouteTable{
					Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Default: pointers(rules), Guards: guards,
				}
				for _, values := range [][]string{
					{"good", "bad"}, {"", "good"}, {"good", ""}, {"good"}, {"bad", "good"}, {"", ""},
				} {
					q := explain.Request{Method: "GET", Host: "web", Path: "/", Headers: http.Header{name: values}}
					a := explain.AtTable(trustDomain, table, model.Authentications{}, clientID, q)
					count[agrees(t, http1Refusals, a, q, c.send(wire(q)), name, values, guards)]++
				}
			}
		})
	}
	t.Log(count)
	require.Greater(t, min(count[200], count[403], count[404], count[500]), 10)
}

// rule is one at random, by its number.
func (r explained) rule(n int) model.Rule {
	var m model.Match
	if r.IntN(3) > 0 {
		kind := r.kind(model.MatchExact, model.MatchPrefix, model.MatchRegex, model.MatchPrefix)
		m.Path = &model.StringMatch{Type: kind, Value: r.of("/admin", "/a", "/a/b", "/ok", "/", "/old", "/old/")}
	}
	if r.IntN(4) == 0 {
		m.Method = r.of("GET", "POST")
	}
	named := func(name, value string) []model.NamedMatch {
		return []model.NamedMatch{{Name: name, StringMatch: model.StringMatch{
			Type: r.kind(model.MatchExact, model.MatchRegex), Value: value,
		}}}
	}
	if r.IntN(3) == 0 {
		m.Headers = named(r.of("x-tenant", "host", "x-forwarded-proto"), r.of("good", "good.*", "web"))
	}
	if r.IntN(3) == 0 {
		m.Query = named("x", r.of("1", "2"))
	}
	out := model.Rule{
		Source: model.ObjectRef{Kind: "HTTPRoute", Namespace: "shop", Name: string(rune('a' + n))}, Match: m,
		Backends: []model.Backend{to(webV1, 1)},
	}
	change := &model.HeaderChange{}
	header := func() []model.Header {
		name, value := r.of("X-Tenant", "x-two-words", "x_two_words", "Host"), r.of("good", "bad", "web", "50%")
		return []model.Header{{Name: name, Value: value}}
	}
	switch r.IntN(8) {
	case 0:
		code := []int{http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect}[r.IntN(3)]
		out.Filters = redirect(model.Redirect{Hostname: "elsewhere", StatusCode: code})
	case 1:
		out.Backends = []model.Backend{{Port: gone, Weight: 1, Invalid: true}}
	case 2:
		out.Backends, out.GRPC = []model.Backend{to(webV1, 0)}, r.IntN(2) == 0
	case 3:
		out.Invalid, out.Backends = true, nil
	case 4:
		change.Set, change.Add = header(), header()
		change.Remove = []string{r.of("x-tenant", "X-Two-Words", "x_two_words")}
		out.Filters = filters(model.Filter{RequestHeaders: change})
		if r.IntN(2) == 0 {
			out.Backends[0].Filters = filters(model.Filter{RequestHeaders: &model.HeaderChange{Set: header()}})
		}
	case 5:
		rw := model.Rewrite{Hostname: r.of("", "web", "a.web.org")}
		if m.Path == nil || m.Path.Type == model.MatchPrefix {
			rw.Path = prefix(r.of("/admin", "/a/", "/", "/a/b"))
		} else {
			rw.Path = full(r.of("/admin", "/a/b", "/50%25", ""))
		}
		out.Filters = rewrite(rw)
	}
	return out
}

// TestRoutesAreExplained: so does the rule that takes a request, what it changes before policies decide, and what is
// answered where no application is asked.
func TestRoutesAreExplained(t *testing.T) {
	s := newShop(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := explained{rand.New(rand.NewPCG(seed, 13))}
	count := map[int]int{}
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	for range 60 {
		var rules []model.Rule
		for n := range 1 + r.IntN(4) {
			rules = append(rules, r.rule(n))
		}
		if r.IntN(2) == 0 {
			rules[len(rules)-1].Match = model.Match{}
		}
		var guards []model.Guard
		if r.IntN(2) == 0 {
			guards = r.guards()
		}
		s.guard(guards, rules...)
		table := model.RouteTable{
			Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Default: pointers(rules), Guards: guards,
		}
		for range 50 {
			q := r.asked()
			a := explain.AtTable(trustDomain, table, model.Authentications{}, clientID, q)
			got := c.send(wire(q))
			count[agrees(t, http1Refusals, a, q, got, seed, rules, guards)]++
		}
	}
	t.Log(count)
	count[302] += count[301] + count[308]
	for _, status := range []int{200, 302, 400, 403, 404, 500} {
		require.NotZero(t, count[status], status)
	}
	require.Less(t, count[0], 60*50/4, "most is known")
}
