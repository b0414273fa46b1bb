// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
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
		h := model.AccessHeader{Name: r.of("X-Tenant", "x-two-words", "Host", "x_under")}
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
	q := explain.Request{Method: r.of("GET", "GET", "POST"), Headers: http.Header{}}
	q.Host = r.of("web", "WEB", "web.", "web..", "web:80", "web.:80", "other", "a.web.org", "a.web.org.", "web:", "xweb")
	q.Path = "/" + r.of("", "a", "a/b", "admin", "admin/", "ok", "a?x=1", "ok?x=2&x=1", "ok?y=1", "a;b/b", "A", "a%2fb",
		"admin?")
	if r.IntN(3) == 0 {
		q.Path = "/" + strings.TrimLeft(spelling(r.Rand), "/")
	}
	for range r.IntN(3) {
		name := r.of("X-Tenant", "x_tenant", "X-Two-Words", "x_two-words", "x_two_words", "x_under", "x-under")
		q.Headers[name] = append(q.Headers[name], r.of("good", "bad", "good, bad", " good", "goods", ""))
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

// TestExplainAgreesWithEnvoy: what `fairway explain` says of a request is what becomes of it, whatever its spelling. Of
// what Envoy takes for no request (400) nothing is said.
func TestExplainAgreesWithEnvoy(t *testing.T) {
	s := newShop(t)
	r := explained{rand.New(rand.NewPCG(3, 5))}
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	count := map[int]int{}
	for range 60 {
		guards := r.guards()
		s.guard(guards)
		for range 60 {
			q := r.asked()
			got := c.send(wire(q))
			count[got]++
			if got == http.StatusBadRequest {
				continue
			}
			want := http.StatusForbidden
			d := explain.Guards(guards, clientID, web.Port, q)
			if d.Verdict == explain.Allowed {
				want = http.StatusOK
			}
			require.Equal(t, want, got, "%q by %+v: %s", wire(q), guards, d.Reason)
		}
	}
	t.Log(count)
	require.Greater(t, min(count[200], count[403]), 300)
}

// TestRoutesAreExplained: so does the rule that takes a request, with its queries, and the answer where none does.
func TestRoutesAreExplained(t *testing.T) {
	s := newShop(t)
	r := explained{rand.New(rand.NewPCG(8, 13))}
	status := func(rule *model.Rule, refused string) int {
		switch {
		case strings.HasPrefix(refused, http.StatusText(http.StatusNotFound)):
			return http.StatusNotFound
		case refused != "":
			return http.StatusBadRequest
		case rule.Filters != nil:
			return http.StatusFound
		}
		return http.StatusOK
	}
	count := map[int]int{}
	dialled := s.guard(nil)
	c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
	for range 40 {
		var rules []model.Rule
		for n := range 1 + r.IntN(3) {
			var m model.Match
			if r.IntN(3) > 0 {
				kind := r.kind(model.MatchExact, model.MatchPrefix, model.MatchRegex)
				m.Path = &model.StringMatch{Type: kind, Value: r.of("/admin", "/a", "/a/b", "/ok", "/")}
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
				m.Headers = named("x-tenant", r.of("good", "good.*"))
			}
			if r.IntN(2) == 0 {
				m.Query = named("x", r.of("1", "2"))
			}
			rule := model.Rule{
				Source: model.ObjectRef{Kind: "HTTPRoute", Namespace: "shop", Name: string(rune('a' + n))}, Match: m,
			}
			if n%2 == 0 {
				rule.Filters = redirect(model.Redirect{Hostname: "elsewhere", StatusCode: http.StatusFound})
			} else {
				rule.Backends = []model.Backend{to(webV1, 1)}
			}
			rules = append(rules, rule)
		}
		s.guard(nil, rules...)
		table := model.RouteTable{Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Default: rules}
		for range 40 {
			q := r.asked()
			got := c.send(wire(q))
			count[got]++
			want := status(route.RuleFor("cluster.local", table, route.Asked{
				Identity: clientID, Method: q.Method, Host: q.Host, Path: q.Path, Headers: q.Headers,
			}.Arrived()))
			if got != http.StatusBadRequest {
				require.Equal(t, want, got, "%q by %+v", wire(q), rules)
			}
		}
	}
	t.Log(count)
	require.Greater(t, slices.Min([]int{count[200], count[302], count[404]}), 50)
}
