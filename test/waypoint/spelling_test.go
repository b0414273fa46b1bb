// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestSpellings: no spelling of a path that some server takes for that of a rule goes around the rule, and all other
// paths reach the application as they are.
func TestSpellings(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		rule(below("/admin"), nil, model.Backend{Port: gone, Weight: 1, Invalid: true}), // answers 500
		rule(below("/a/@b"), nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
		rule(at(model.MatchExact, "/exact"), nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
		rule(at(model.MatchExact, "/slash/"), nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
		rule(model.Match{Path: below("/beta").Path, Headers: []model.NamedMatch{
			{Name: "x-beta", StringMatch: model.StringMatch{Type: model.MatchExact, Value: "yes"}},
		}}, nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
		rule(below("/"), nil, to(webV1, 1)),
	})})
	caller := s.caller(clientID)
	ask := func(path string, header string) reply {
		t.Helper()
		c, err := caller.dial(t.Context(), dialled)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: web\r\nConnection: close\r\n"+header+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		b, _ := io.ReadAll(resp.Body)
		r := reply{status: resp.StatusCode, body: string(b)}
		_ = json.Unmarshal(b, &r.echoed)
		return r
	}
	const taken, refused = 500, 400
	for path, want := range map[string]int{
		// What all servers agree on is the rule's.
		"/admin": taken, "/admin/": taken, "/admin/x": taken, "/admin/x;y=1/z%2fz": taken, "/admin?x": taken,
		"//admin": taken, "/x/../admin": taken, "/./admin//x": taken, "/%61dmin": taken, "/x/%2e%2e/admin": taken,
		"/x/..//admin": taken, `/x\..\admin`: taken, "http://web/admin": taken, "http://web//admin": taken,
		"/exact": taken, "/exact?x": taken, "/slash/": taken, "/a/@b/c": taken, "/a//@b": taken,
		"/x/..;/admin": taken, "/x/..;a=b/admin": taken, "/.;/admin": taken,
		// What only some take for the rule's is refused.
		"/admin%2fx": refused, "/admin%2Fx": refused, "/admin%5cx": refused, "/%2fadmin": refused, "/%5Cadmin/x": refused,
		"/admin;x": refused, "/admin;x/y": refused, "/admin;": refused, "/admin%3bx": refused, "/;x/admin": refused,
		"/x/..%2fadmin": refused, "/x/..%5cadmin": refused, "/x%2f..%2fadmin": refused, "/x/%2e%2e%2fadmin": refused,
		"/x/.%2f../admin": refused,
		"/x/..%2f..%2f":   refused, "/x%2f..": refused, "/x%2f../admin": refused, "/x/%2e%2e;/admin": refused,
		"/exact;x": refused, "/%2fexact": refused, "/slash%2f": refused, "/slash;x/": refused, "/slash/;x": refused,
		"/a%2f@b": refused, "/a/%40b": refused, "/a;x/@b/c": refused, "/a/%40b%2fc": refused,
	} {
		if r := ask(path, ""); r.status != want {
			t.Errorf("%s: %d from %q at %s, want %d", path, r.status, r.Name, r.URI, want)
		}
	}
	// The rest is the application's business.
	for path, want := range map[string]string{
		"/administrator": "/administrator", "/admin.x": "/admin.x", "/x/admin": "/x/admin", "/x%2fadmin": "/x%2fadmin",
		"/exact/x": "/exact/x", "/slash": "/slash", "/exact%2fx": "/exact%2fx",
		"/api/queues/%2F/name": "/api/queues/%2F/name", "/projects/group%2Fproject/x": "/projects/group%2Fproject/x",
		"/@scope%2fname": "/@scope%2fname", "/route/13.3,52.5;13.4,52.6": "/route/13.3,52.5;13.4,52.6",
		"/login;jsessionid=1": "/login;jsessionid=1", "/x%2f.hidden": "/x%2f.hidden", "/x/...%2fy": "/x/...%2fy",
		"/x//y": "/x/y", "/x?q=/admin%2f..;": "/x?q=/admin%2f..;", "/x%252fadmin": "/x%252fadmin", "/a%20b": "/a%20b",
	} {
		if r := ask(path, ""); r.status != 200 || r.URI != want {
			t.Errorf("%s: %d, and the application sees %s, want %s: %s", path, r.status, r.URI, want, r.body)
		}
	}
	// A rule that asks for more than a path concerns those only that have it.
	if r := ask("/beta;x", ""); r.status != 200 {
		t.Errorf("without the rule's header: %d", r.status)
	}
	if r := ask("/beta;x", "X-Beta: yes\r\n"); r.status != refused {
		t.Errorf("with the rule's header: %d", r.status)
	}
	line := s.accessLog(map[string]any{"path": "/admin%2fx"})
	if line["route"] != "ambiguous/HTTPRoute/shop/web/0" {
		t.Errorf("access log: %v", line)
	}
}

// TestMethodSpellings: a method that only some servers take for that of a rule does not go around the rule, in either
// version of HTTP. Other methods are the application's business.
func TestMethodSpellings(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		// answers 500
		rule(model.Match{Path: below("/").Path, Method: "POST"}, nil, model.Backend{Port: gone, Weight: 1, Invalid: true}),
		rule(below("/"), nil, to(webV1, 1)),
	})})
	const taken, refused, passed = 500, 400, 200
	caller := s.caller(clientID)
	for what, protocols := range map[string]*http.Protocols{"HTTP/1": nil, "HTTP/2": h2cOnly()} {
		client := caller.client(t, dialled, protocols)
		for method, want := range map[string]int{
			"POST": taken, "post": refused, "Post": refused, "pOST": refused, "get": refused, "Delete": refused,
			"patch": refused,
			"GET":   passed, "DELETE": passed, "PROPFIND": passed,
		} {
			if r := do(t, client, method, "http://web/"); r.status != want {
				t.Errorf("%s: %s: %d, and the application sees %q, want %d", what, method, r.status, r.Method, want)
			}
		}
	}
	// HTTP/1 has a list of methods, HTTP/2 has none.
	for _, method := range []string{"posts", "xpost", "frobnicate", "FROBNICATE"} {
		if r := do(t, caller.client(t, dialled, h2cOnly()), method, "http://web/"); r.status != passed || r.Method != method {
			t.Errorf("%s: %d, and the application sees %q", method, r.status, r.Method)
		}
	}
	if line := s.accessLog(map[string]any{"method": "pOST", "protocol": "HTTP/2"}); line["route"] != "ambiguous/method" {
		t.Errorf("access log: %v", line)
	}
}
