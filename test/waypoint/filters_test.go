// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

func TestPaths(t *testing.T) {
	s := newShop(t)
	port := model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	table := model.RouteTable{Default: pointers([]model.Rule{
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
	})}
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
	dialled := s.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		rule(below("/all"), filters(m(copies, 1, 1), m(webV2, 1, 1)), to(webV1, 1)),
		rule(below("/half"), filters(m(webV2, 1, 2)), to(webV1, 1)),
	})})
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
	dialled := s.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		rule(below("/cors"), filters(model.Filter{CORS: &policy}), to(webV1, 1)),
		rule(below("/any"), filters(model.Filter{CORS: &model.CORS{
			AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true,
		}}), to(webV1, 1)),
		session("/cookie", model.SessionPersistence{Name: "sid", CookieLifetime: time.Hour}),
		session("/header", model.SessionPersistence{Name: "x-sid", Header: true}),
	})})
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
