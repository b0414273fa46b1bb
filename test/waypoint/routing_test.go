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
	"time"

	"github.com/fairway-mesh/fairway/internal/eventually"
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
		Callers: []model.CallerRules{{Namespace: "consumer", Rules: []model.Rule{rule(below("/mine"), nil, to(webV2, 1))}}},
		Default: []model.Rule{
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
		},
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

func TestPaths(t *testing.T) {
	s := newShop(t)
	port := model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	table := model.RouteTable{Default: []model.Rule{
		rule(below("/r/scheme"), redirect(model.Redirect{Scheme: "https"})),
		rule(below("/r/scheme-host"), redirect(model.Redirect{Scheme: "https", Hostname: "example.org"})),
		rule(below("/r/scheme-port"), redirect(model.Redirect{Scheme: "https", Port: 8443})),
		rule(below("/r/host"), redirect(model.Redirect{Hostname: "example.org", StatusCode: 301})),
		rule(below("/r/port"), redirect(model.Redirect{Port: 8083})),
		rule(below("/r/port-80"), redirect(model.Redirect{Port: 80})),
		rule(below("/r/full"), redirect(model.Redirect{Path: full("/new%41"), StatusCode: 308})),
		rule(below("/r/old"), redirect(model.Redirect{Path: prefix("/new/"), StatusCode: 307})),
		rule(below("/r/strip"), redirect(model.Redirect{Path: prefix("/"), StatusCode: 303})),

		rule(below("/w/host"), rewrite(model.Rewrite{Hostname: "other.example"}), to(webV1, 1)),
		rule(below("/w/full"), rewrite(model.Rewrite{Path: full("/one%41")}), to(webV1, 1)),
		rule(below("/foo"), rewrite(model.Rewrite{Path: prefix("/xyz")}), to(webV1, 1)),
		rule(below("/bar/"), rewrite(model.Rewrite{Path: prefix("/xyz/")}), to(webV1, 1)),
		rule(below("/strip"), rewrite(model.Rewrite{Path: prefix("/")}), to(webV1, 1)),
		rule(below("/"), rewrite(model.Rewrite{Path: prefix("/root")}), to(webV1, 1)),
	}}
	dialled := s.serve(port, true, &table)
	c := s.caller(clientID).client(t, dialled, nil)
	for _, tc := range []struct {
		host, path string
		status     int
		location   string
	}{
		{"web", "/r/scheme?q=1", 302, "https://web/r/scheme?q=1"},
		{"web:8080", "/r/scheme", 302, "https://web:443/r/scheme"},
		{"web", "/r/scheme-host", 302, "https://example.org/r/scheme-host"},
		{"web:8080", "/r/scheme-host", 302, "https://example.org/r/scheme-host"},
		{"web", "/r/scheme-port", 302, "https://web:8443/r/scheme-port"},
		{"web:1", "/r/host", 301, "http://example.org/r/host"},
		{"web", "/r/port", 302, "http://web:8083/r/port"},
		{"web:1", "/r/port", 302, "http://web:8083/r/port"},
		{"web", "/r/port-80", 302, "http://web/r/port-80"},
		{"web:1", "/r/port-80", 302, "http://web:80/r/port-80"},
		{"web:1", "/r/full/x?q=1", 308, "http://web:1/new%41?q=1"},
		{"web", "/r/old/x?q=1", 307, "http://web/new/x?q=1"},
		{"web", "/r/old", 307, "http://web/new"},
		{"web", "/r/strip/x?q=1", 303, "http://web/x?q=1"},
		{"web", "/r/strip", 303, "http://web/"},
	} {
		r := do(t, c, "GET", "http://web"+tc.path, "Host", tc.host)
		if r.status != tc.status || r.header.Get("Location") != tc.location {
			t.Errorf("%s%s: %d %s, want %d %s", tc.host, tc.path, r.status, r.header.Get("Location"), tc.status, tc.location)
		}
	}
	for path, want := range map[string]string{
		"/w/full/x?q=1": "/one%41?q=1",
		"/foo":          "/xyz", "/foo/": "/xyz/", "/foo/bar": "/xyz/bar", "/foo/bar?q=1": "/xyz/bar?q=1",
		"/bar": "/xyz", "/bar/": "/xyz/", "/bar/baz": "/xyz/baz",
		"/strip": "/", "/strip/": "/", "/strip/x": "/x", "/strip//x": "/x", "/strip/x?q=/strip/": "/x?q=/strip/",
		"/": "/root/", "/x": "/root/x", "/foox": "/root/foox",
	} {
		if r := do(t, c, "GET", "http://web"+path); r.URI != want || r.Host != "web" {
			t.Errorf("%s: the application sees %s at host %s, want %s", path, r.URI, r.Host, want)
		}
	}
	if r := do(t, c, "GET", "http://web/w/host"); r.Host != "other.example" {
		t.Errorf("host: %q", r.Host)
	}
}

func TestMirrors(t *testing.T) {
	s := newShop(t)
	m := func(p model.ServicePort, n, d uint32) model.Filter {
		return model.Filter{Mirror: &model.Mirror{Backend: to(p, 1), Numerator: n, Denominator: d}}
	}
	hosts := make(chan string, 1000)
	e, _ := s.pod(appID, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hosts <- r.Host }))
	copies := model.ServicePort{Namespace: "shop", Service: "copies", Port: 80}
	s.backend(copies, model.ProtocolHTTP, e)
	dialled := s.serve(web, true, &model.RouteTable{Default: []model.Rule{
		rule(below("/all"), filters(m(copies, 1, 1), m(webV2, 1, 1)), to(webV1, 1)),
		rule(below("/half"), filters(m(webV2, 1, 2)), to(webV1, 1)),
	}})
	c := s.caller(clientID).client(t, dialled, nil)
	for range 10 {
		if r := do(t, c, "GET", "http://web/all"); r.Name != "v1" {
			t.Fatalf("answered by %q", r.Name)
		}
	}
	for range 10 {
		select {
		case h := <-hosts:
			if h != "web" {
				t.Errorf("the copy's host is %q", h)
			}
		case <-time.After(patience):
			t.Fatal("a copy is missing")
		}
	}
	eventually.True(s.t, "the copies to the second mirror", func() bool { return s.v2.Requests.Load() == 10 })
	for range 400 {
		do(t, c, "GET", "http://web/half")
	}
	eventually.True(s.t, "about half of the copies", func() bool { return s.v2.Requests.Load() >= 10+140 })
	if n := s.v2.Requests.Load(); n > 10+260 {
		t.Errorf("%d copies of 400", n-10)
	}
}

func TestCORSAndSessions(t *testing.T) {
	s := newShop(t)
	policy := model.CORS{
		AllowOrigins: []string{"https://a.example", "https://*.b.example"}, AllowMethods: []string{"GET", "PUT"},
		AllowHeaders: []string{"x-a"}, ExposeHeaders: []string{"x-c"}, AllowCredentials: true, MaxAge: time.Hour,
	}
	session := func(p string, sp model.SessionPersistence) model.Rule {
		r := rule(below(p), nil, to(webV1, 1))
		r.SessionPersistence = &sp
		return r
	}
	other := &echo{Name: "v1-other"}
	e1, _ := s.pod(appID, s.v1)
	e2, _ := s.pod(appID, other)
	s.endpoints(webV1, e1, e2)
	dialled := s.serve(web, true, &model.RouteTable{Default: []model.Rule{
		rule(below("/cors"), filters(model.Filter{CORS: &policy}), to(webV1, 1)),
		rule(below("/any"), filters(model.Filter{CORS: &model.CORS{
			AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true,
		}}), to(webV1, 1)),
		session("/cookie", model.SessionPersistence{Name: "sid", CookieLifetime: time.Hour}),
		session("/header", model.SessionPersistence{Name: "x-sid", Header: true}),
	}})
	c := s.caller(clientID).client(t, dialled, nil)
	for origin, allowed := range map[string]bool{
		"https://a.example": true, "https://x.b.example": true, "https://x.y.b.example": true, "https://c.example": false,
		"https://b.example": false,
	} {
		before := s.v1.Requests.Load() + other.Requests.Load()
		r := do(t, c, "OPTIONS", "http://web/cors", "Origin", origin, "Access-Control-Request-Method", "PUT")
		h := r.header
		if (h.Get("Access-Control-Allow-Origin") == origin) != allowed || allowed &&
			(h.Get("Access-Control-Allow-Methods") != "GET, PUT" ||
				h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Max-Age") != "3600") {
			t.Errorf("preflight from %s: %d %v", origin, r.status, h)
		}
		if s.v1.Requests.Load()+other.Requests.Load() != before {
			t.Errorf("a preflight from %s reached the application", origin)
		}
		r = do(t, c, "GET", "http://web/cors", "Origin", origin)
		if (r.header.Get("Access-Control-Allow-Origin") == origin) != allowed {
			t.Errorf("request from %s: %v", origin, r.header)
		}
	}
	for asked, method := range map[string]string{"x-a, x-b": "PUT", "": "DELETE"} {
		header := []string{"Origin", "https://a.example", "Access-Control-Request-Method", method}
		if asked != "" {
			header = append(header, "Access-Control-Request-Headers", asked)
		}
		h := do(t, c, "OPTIONS", "http://web/any", header...).header
		if _, there := h["Access-Control-Allow-Headers"]; there != (asked != "") ||
			h.Get("Access-Control-Allow-Headers") != asked ||
			h.Get("Access-Control-Allow-Methods") != method || h.Get("Access-Control-Allow-Origin") != "https://a.example" {
			t.Errorf("preflight for %q: %v", asked, h)
		}
		for name := range do(t, c, "GET", "http://web/any", "Origin", "https://a.example").header {
			if strings.HasPrefix(name, "Access-Control-Allow-") && name != "Access-Control-Allow-Origin" &&
				name != "Access-Control-Allow-Credentials" {
				t.Errorf("a plain request's answer has %s", name)
			}
		}
	}
	for path, keep := range map[string][2]string{"/cookie": {"Set-Cookie", "Cookie"}, "/header": {"X-Sid", "X-Sid"}} {
		r := do(t, c, "GET", "http://web"+path)
		value, _, _ := strings.Cut(r.header.Get(keep[0]), ";")
		if value == "" {
			t.Fatalf("%s: no session in %v", path, r.header)
		}
		for range 20 {
			if again := do(t, c, "GET", "http://web"+path, keep[1], value); again.Name != r.Name {
				t.Errorf("%s: the session moved from %s to %s", path, r.Name, again.Name)
			}
		}
	}
}
