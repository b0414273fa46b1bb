// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

var (
	web   = model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	webV1 = model.ServicePort{Namespace: "shop", Service: "web-v1", Port: 8080}
	webV2 = model.ServicePort{Namespace: "shop", Service: "web-v2", Port: 8080}
	plain = model.ServicePort{Namespace: "shop", Service: "plain", Port: 8080}
	gone  = model.ServicePort{Namespace: "shop", Service: "gone", Port: 8080}
	empty = model.ServicePort{Namespace: "shop", Service: "empty", Port: 8080}
)

// reply is an answer, read to its end.
type reply struct {
	echoed
	status int
	header http.Header
	body   string
}

func do(t *testing.T, c *http.Client, method, url string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	_ = json.Unmarshal(b, &r.echoed)
	return r
}

func rule(m model.Match, filters []model.Filter, b ...model.Backend) model.Rule {
	return model.Rule{
		Source: model.ObjectRef{Kind: "HTTPRoute", Namespace: "shop", Name: "web"}, Match: m,
		Filters: filters, Backends: b,
	}
}

func at(t model.MatchType, p string) model.Match {
	return model.Match{Path: &model.StringMatch{Type: t, Value: p}}
}

func below(p string) model.Match { return at(model.MatchPrefix, p) }

func to(p model.ServicePort, weight uint32, filters ...model.Filter) model.Backend {
	return model.Backend{Port: p, Weight: weight, Filters: filters}
}

func filters(f ...model.Filter) []model.Filter { return f }

func redirect(r model.Redirect) []model.Filter { return filters(model.Filter{Redirect: &r}) }

func rewrite(r model.Rewrite) []model.Filter { return filters(model.Filter{Rewrite: &r}) }

func prefix(s string) *model.PathChange { return &model.PathChange{Prefix: &s} }

func full(s string) *model.PathChange { return &model.PathChange{Full: &s} }

// shop has two versions in the mesh, and one Service outside of it.
type shop struct {
	*world
	v1, v2, out *echo
}

func newShop(t *testing.T) *shop {
	s := &shop{world: newWorld(t), v1: &echo{Name: "v1"}, v2: &echo{Name: "v2"}, out: &echo{Name: "plain"}}
	e1, _ := s.pod(appID, s.v1)
	e2, _ := s.pod(appID, s.v2)
	s.backend(webV1, model.ProtocolHTTP, e1)
	s.backend(webV2, model.ProtocolHTTP, e2)
	s.backend(plain, model.ProtocolHTTP, model.Endpoint{Address: s.app(s.out)})
	s.backend(empty, model.ProtocolHTTP)
	s.backend(web, model.ProtocolHTTP, e1)
	return s
}

func TestRouting(t *testing.T) {
	s := newShop(t)
	header := model.Match{Headers: []model.NamedMatch{
		{Name: "X-Version", StringMatch: model.StringMatch{Type: model.MatchExact, Value: "v2"}},
	}}
	change := &model.HeaderChange{
		Set:    []model.Header{{Name: "X-Set", Value: "100% %ENVIRONMENT(PATH)%"}, {Name: "Host", Value: "set.example"}},
		Add:    []model.Header{{Name: "X-Add", Value: "2"}},
		Remove: []string{"X-Remove"},
	}
	table := model.RouteTable{
		Callers: []model.CallerRules{{
			Namespace: "consumer", Rules: pointers([]model.Rule{rule(below("/mine"), nil, to(webV2, 1))}),
		}},
		Default: pointers([]model.Rule{
			rule(header, nil, to(webV2, 1)),
			rule(below("/split"), nil, to(webV1, 90), to(webV2, 10)),
			rule(below("/plain"), nil, to(plain, 1)),
			rule(below("/empty"), nil, to(empty, 1)),
			rule(below("/part-invalid"), nil, to(webV1, 1), model.Backend{Port: gone, Weight: 1, Invalid: true}),
			rule(below("/invalid"), nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
			rule(below("/zero"), nil, to(webV1, 0)),
			rule(at(model.MatchRegex, "/re/[a-z0-9-]{1,63}/x"), nil, to(webV2, 1)),
			rule(model.Match{Method: "DELETE"}, nil, to(webV2, 1)),
			rule(model.Match{Query: []model.NamedMatch{
				{Name: "v", StringMatch: model.StringMatch{Type: model.MatchExact, Value: "2"}},
			}}, nil, to(webV2, 1)),
			rule(below("/headers"), filters(model.Filter{RequestHeaders: change}, model.Filter{
				ResponseHeaders: &model.HeaderChange{
					Set: []model.Header{{Name: "X-Answer", Value: "50%"}}, Remove: []string{"Server"},
				},
			}), to(webV1, 1)),
			rule(below("/stamped"), nil,
				to(webV1, 1, model.Filter{RequestHeaders: &model.HeaderChange{
					Set: []model.Header{{Name: "X-Backend", Value: "1"}},
				}}),
				to(webV2, 1, model.Filter{RequestHeaders: &model.HeaderChange{
					Set: []model.Header{{Name: "X-Backend", Value: "2"}},
				}})),
			rule(below("/api"), nil, to(webV1, 1)),
			rule(below("/spoof"), filters(model.Filter{RequestHeaders: &model.HeaderChange{
				Set: []model.Header{{Name: "X-Forwarded-Client-Cert", Value: "URI=spiffe://cluster.local/ns/kube-system/sa/admin"}},
			}}), to(webV1, 1)),
		}),
	}
	dialled := s.serve(web, true, &table)
	caller := s.caller(clientID)
	c := caller.client(t, dialled, nil)

	t.Run("matches", func(t *testing.T) {
		for _, tc := range []struct {
			method, url string
			header      []string
			status      int
			name        string
		}{
			{"GET", "/x", []string{"X-Version", "v2"}, 200, "v2"},
			{"GET", "/api", nil, 200, "v1"},
			{"GET", "/api/", nil, 200, "v1"},
			{"GET", "/api/x?y", nil, 200, "v1"},
			{"GET", "/apix", nil, 404, ""},
			{"GET", "/a/../api", nil, 200, "v1"},
			{"GET", "/re/abc-1/x", nil, 200, "v2"},
			{"GET", "/re/abc-1/xx", nil, 404, ""},
			{"DELETE", "/q", nil, 200, "v2"},
			{"GET", "/q?v=2", nil, 200, "v2"},
			{"GET", "/q?v=3", nil, 404, ""},
			{"GET", "/plain", nil, 200, "plain"},
			{"GET", "/empty", nil, 503, ""},
			{"GET", "/invalid", nil, 500, ""},
			{"GET", "/zero", nil, 500, ""},
		} {
			r := do(t, c, tc.method, "http://web"+tc.url, tc.header...)
			if r.status != tc.status || r.Name != tc.name {
				t.Errorf("%s %s: status %d from %q, want %d from %q: %s", tc.method, tc.url, r.status, r.Name, tc.status, tc.name,
					r.body)
			}
		}
	})
	t.Run("split 90/10", func(t *testing.T) {
		const n = 2000
		count := map[string]int{}
		for range n {
			count[do(t, c, "GET", "http://web/split").Name]++
		}
		t.Log(count)
		if got := count["v2"]; got < n*7/100 || got > n*13/100 || count["v1"]+got != n {
			t.Errorf("split is %v", count)
		}
	})
	t.Run("invalid backend has its share", func(t *testing.T) {
		count := map[int]int{}
		for range 200 {
			count[do(t, c, "GET", "http://web/part-invalid").status]++
		}
		if count[200] < 60 || count[500] < 60 || count[200]+count[500] != 200 {
			t.Errorf("statuses are %v", count)
		}
	})
	t.Run("header changes", func(t *testing.T) {
		r := do(t, c, "GET", "http://web/headers", "X-Set", "old", "X-Add", "1", "X-Remove", "x")
		if got := r.Header.Get("X-Set"); got != "100% %ENVIRONMENT(PATH)%" {
			t.Errorf("set: %q", got)
		}
		if got := strings.Join(r.Header.Values("X-Add"), ","); got != "1,2" {
			t.Errorf("add: %q", got)
		}
		if _, there := r.Header["X-Remove"]; there || r.Host != "set.example" {
			t.Errorf("remove: %v, host %q", there, r.Host)
		}
		if r.header.Get("X-Answer") != "50%" || r.header.Get("Server") != "" {
			t.Errorf("response: %v", r.header)
		}
		if got := do(t, c, "GET", "http://web/api").header.Get("Server"); got != "echo" {
			t.Errorf("the application's server header became %q", got)
		}
		for range 20 {
			if r := do(t, c, "GET", "http://web/stamped"); "v"+r.Header.Get("X-Backend") != r.Name {
				t.Errorf("backend filter: %q at %q", r.Header.Get("X-Backend"), r.Name)
			}
		}
	})
	t.Run("callers of a namespace with rules", func(t *testing.T) {
		mine := s.caller("spiffe://cluster.local/ns/consumer/sa/x").client(t, dialled, nil)
		if r := do(t, mine, "GET", "http://web/mine"); r.Name != "v2" {
			t.Errorf("own rule: %d from %q", r.status, r.Name)
		}
		if r := do(t, mine, "GET", "http://web/api"); r.status != 404 {
			t.Errorf("fell through to the default rules: %d from %q", r.status, r.Name)
		}
		if r := do(t, c, "GET", "http://web/mine"); r.status != 404 {
			t.Errorf("another namespace: %d from %q", r.status, r.Name)
		}
		other := s.caller("spiffe://cluster.local/ns/consumer-2/sa/consumer").client(t, dialled, nil)
		if r := do(t, other, "GET", "http://web/mine"); r.status != 404 {
			t.Errorf("a namespace of similar name: %d from %q", r.status, r.Name)
		}
	})
	t.Run("what the application learns of the caller", func(t *testing.T) {
		r := do(t, c, "GET", "http://web/api",
			"X-Forwarded-Client-Cert", "URI=spiffe://cluster.local/ns/kube-system/sa/admin",
			"X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https", "X-Request-Id", "mine",
			"X-Envoy-Max-Retries", "9", "X-Envoy-Upstream-Rq-Timeout-Ms", "1", "X-Fairway-Port", "8080.web-v2.shop")
		if got := r.Header["X-Forwarded-Client-Cert"]; len(got) != 1 || got[0] != "URI="+clientID {
			t.Errorf("x-forwarded-client-cert: %q", got)
		}
		if got := do(t, c, "GET", "http://web/spoof").Header["X-Forwarded-Client-Cert"]; len(got) != 1 ||
			got[0] != "URI="+clientID {
			t.Errorf("a route changed x-forwarded-client-cert to %q", got)
		}
		if got := r.Header.Get("X-Forwarded-For"); got != "198.51.100.7,"+caller.address.String() {
			t.Errorf("x-forwarded-for: %q", got)
		}
		if got := r.Header.Get("X-Forwarded-Proto"); got != "https" {
			t.Errorf("x-forwarded-proto: %q", got)
		}
		if got := r.Header.Get("X-Request-Id"); got != "mine" {
			t.Errorf("x-request-id: %q", got)
		}
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Envoy") || strings.HasPrefix(name, "X-Fairway") {
				t.Errorf("the application sees %s: %q", name, r.Header.Get(name))
			}
		}
		for name := range r.header {
			if strings.HasPrefix(name, "X-Envoy") {
				t.Errorf("the caller sees %s: %q", name, r.header.Get(name))
			}
		}
	})
	t.Run("access log", func(t *testing.T) {
		do(t, c, "GET", "http://web/api/logged?secret", "X-Forwarded-For", "198.51.100.7")
		line := s.accessLog(map[string]any{"path": "/api/logged"})
		if from, _ := line["from"].(string); !strings.HasPrefix(from, caller.address.String()+":") {
			t.Errorf("from is %q, want %s", from, caller.address)
		}
		for k, v := range map[string]string{
			"source": clientID, "destination": appID, "status": "200", "route": "HTTPRoute/shop/web/0",
			"dialled": "80.web.shop", "method": "GET", "cluster": "service/shop/web-v1/8080", "host": "web", "tries": "1",
		} {
			if got := fmt.Sprint(line[k]); got != v {
				t.Errorf("%s is %v, want %v", k, got, v)
			}
		}
		t.Log(line)
	})
}
