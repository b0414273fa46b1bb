// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairway-mesh/fairway/internal/model"
)

// trick is a request that is to be taken for another one.
type trick struct {
	policy *model.AccessRequest
	deny   bool
	// requests in HTTP/1.1, "|" for the end of a line; each must get one of the statuses.
	requests map[string]string
}

// TestGuardsAgainstTricks with headers, hosts and methods, as they are on the wire.
func TestGuardsAgainstTricks(t *testing.T) {
	header := func(name string, kind model.MatchType, value string) *model.AccessRequest {
		return &model.AccessRequest{Headers: []model.AccessHeader{
			{Name: name, Value: &model.StringMatch{Type: kind, Value: value}},
		}}
	}
	const begin = "GET / HTTP/1.1|Host: web|"
	denied := func(headers ...string) map[string]string {
		out := map[string]string{begin: "200", begin + "X-Tenant: good|": "200", begin + "X-Tenantry: bad|": "200"}
		for _, h := range headers {
			out[begin+h+"|"] = "403"
		}
		return out
	}
	s := newShop(t)
	for name, tc := range map[string]trick{
		"deny a value": {header("x-tenant", model.MatchExact, "bad"), true, denied(
			"x-tenant: bad", "X-TENANT: bad", "x-tenant:bad", "x-tenant: \t bad \t", "x-tenant: good|x-tenant: bad",
			"x-tenant: bad|x-tenant: good", "x-tenant: good,bad", "x-tenant: bad , good", "x-tenant: a,bad,c", "x_tenant: bad",
			"x-tenant: \xff,bad", "x-tenant: bad,\xff", "x-tenant: ,bad,", "x-tenant: good|x_tenant: bad",
		)},
		"deny a beginning": {header("x-tenant", model.MatchPrefix, "bad"), true, denied(
			"x-tenant: bad", "x-tenant: badly", "x-tenant: bad\xff", "x-tenant: good, bad\xff,x", "x-tenant: \xff,badly",
		)},
		"deny an expression": {header("x-tenant", model.MatchRegex, ".*bad.*"), true, denied(
			"x-tenant: bad", "x-tenant: \xffbad", "x-tenant: good|x-tenant: abad", "x-tenant: good|x-tenant: \xffbad",
			"x-tenant: bad\xff",
		)},
		"deny one that is there": {&model.AccessRequest{Headers: []model.AccessHeader{{Name: "x-debug"}}}, true, denied(
			"x-debug: 1", "X-Debug:", "x-debug: \xff", "x_debug: 1", "x-debug: a|x-debug: b",
		)},
		"allow a value": {header("x-tenant", model.MatchExact, "good"), false, map[string]string{
			begin + "x-tenant: good|": "200", begin + "X-Tenant: good , good|": "200", begin: "403",
			begin + "x-tenant: good|x-tenant: bad|": "403", begin + "x-tenant: bad|x-tenant: good|": "403",
			begin + "x-tenant: good,bad|": "403", begin + "x-tenant: good|x_tenant: bad|": "403",
			begin + "x_tenant: good|": "403", begin + "x-tenant: goods|": "403", begin + "x-tenant: good\xff|": "403",
			begin + "x-tenant: good|x_tenant: \xff|": "403",
		}},
		"deny who isn't": {&model.AccessRequest{Headers: []model.AccessHeader{{
			Name: "x-forwarded-client-cert", Value: &model.StringMatch{Type: model.MatchRegex, Value: ".*other.*"},
		}}}, true, map[string]string{begin + "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/other|": "200"}},
		"deny a host": {&model.AccessRequest{Hosts: []string{"web", "*.web.org"}}, true, map[string]string{
			"GET / HTTP/1.1|Host: other|": "200", "GET / HTTP/1.1|Host: webs|": "200", "GET / HTTP/1.1|Host: web.com|": "200",
			"GET / HTTP/1.1|Host: web|": "403", "GET / HTTP/1.1|Host: WEB|": "403", "GET / HTTP/1.1|Host: web.|": "403",
			"GET / HTTP/1.1|Host: web:80|": "403", "GET / HTTP/1.1|Host: web:|": "403", "GET / HTTP/1.1|Host: Web.:1|": "403",
			"GET / HTTP/1.1|Host: a.web.org|": "403", "GET / HTTP/1.1|Host: web..|": "403",
			"GET / HTTP/1.1|Host: web:x|":           "403 400",
			"GET http://web/ HTTP/1.1|Host: other|": "403", "GET http://other/ HTTP/1.1|Host: web|": "200",
			"GET / HTTP/1.1|Host: other|Host: web|": "400 403", "GET / HTTP/1.1|Host: web|Host: other|": "400 403",
			"GET / HTTP/1.1|Host: other,web|": "400 403", "GET / HTTP/1.1|Host: x@web|": "400 403",
			"GET / HTTP/1.1|Host: %77eb|": "400 403", "GET http://x@web/ HTTP/1.1|Host: other|": "400 403",
			"GET / HTTP/1.1|Host: \tweb |": "403", "GET / HTTP/1.1|Host: other|X-Forwarded-Host: web|": "200",
		}},
		"allow a host": {&model.AccessRequest{Hosts: []string{"web"}}, false, map[string]string{
			"GET / HTTP/1.1|Host: web|": "200", "GET / HTTP/1.1|Host: WEB.:80|": "200", "GET / HTTP/1.1|Host: other|": "403",
			"GET http://web/ HTTP/1.1|Host: other|": "200", "GET http://other/ HTTP/1.1|Host: web|": "403",
			"GET / HTTP/1.1|Host: web|Host: other|": "400 403", "GET / HTTP/1.1|Host: web,other|": "400 403",
			"GET / HTTP/1.1|Host: web@other|": "400 403", "GET / HTTP/1.1|Host: web:80@other|": "400 403",
		}},
		"deny a method": {&model.AccessRequest{Methods: []string{"DELETE", "PURGE"}}, true, map[string]string{
			"GET / HTTP/1.1|Host: web|": "200", "DELETE / HTTP/1.1|Host: web|": "403", "delete / HTTP/1.1|Host: web|": "400",
			"PURGE / HTTP/1.1|Host: web|": "403", "GET / HTTP/1.1|Host: web|X-HTTP-Method-Override: DELETE|": "200",
			"CONNECT web:80 HTTP/1.1|Host: web:80|": "404 403", "DELETE  / HTTP/1.1|Host: web|": "400 403",
		}},
		"deny a path": {pathIs(model.MatchRegex, "/admin(/.*)?"), true, map[string]string{
			"GET / HTTP/1.1|Host: web|": "200", "GET /admins HTTP/1.1|Host: web|": "200",
			"GET /admin HTTP/1.1|Host: web|":  "403",
			"GET /ADMIN/ HTTP/1.1|Host: web|": "403", "GET //admin/x HTTP/1.1|Host: web|": "403",
			"GET /a/../admin HTTP/1.1|Host: web|": "403", "GET /%61dmin HTTP/1.1|Host: web|": "403",
			"GET /admin%2fx HTTP/1.1|Host: web|": "403", "GET /admin;a=b HTTP/1.1|Host: web|": "403",
			"GET /x/..;/admin HTTP/1.1|Host: web|": "400 403", "GET http://web/admin HTTP/1.1|Host: web|": "403",
			"GET /admin?x HTTP/1.1|Host: web|": "403", "GET /admin#x HTTP/1.1|Host: web|": "403 400",
			"GET /?/admin HTTP/1.1|Host: web|": "200", "GET /admin%00 HTTP/1.1|Host: web|": "403 400",
			"GET /x%c0%af../admin HTTP/1.1|Host: web|": "403 400", `GET \admin HTTP/1.1|Host: web|`: "403 400",
			`GET /\admin HTTP/1.1|Host: web|`: "403 400", "GET /admin\xff HTTP/1.1|Host: web|": "200 400 403",
			"GET /%u0061dmin HTTP/1.1|Host: web|": "403 400", "GET /%2561dmin HTTP/1.1|Host: web|": "403",
			"GET http://web HTTP/1.1|Host: web|": "200", "GET http://web?/admin HTTP/1.1|Host: web|": "404",
			"OPTIONS * HTTP/1.1|Host: web|": "404 400 403",
		}},
	} {
		dialled := s.guard(onRequests(accessPolicy("p", tc.deny, fromAccount("", tc.policy))))
		for request, want := range tc.requests {
			c, in := raw(t, s.caller(clientID), dialled)
			_, _ = io.WriteString(c, strings.ReplaceAll(request, "|", "\r\n")+"Connection: close\r\n\r\n")
			got, err := readStatus(in)
			if err != nil || !strings.Contains(want, fmt.Sprint(got)) {
				t.Errorf("%s: %q: %d, not %s, %v", name, request, got, want, err)
			}
			_ = c.Close()
		}
	}
}

// TestGuardsAgainstTricksOfHTTP2, which names hosts and methods in headers.
func TestGuardsAgainstTricksOfHTTP2(t *testing.T) {
	s := newShop(t)
	var mu sync.Mutex
	var seen []string
	e, _ := s.pod(appID, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.Host+r.RequestURI)
	}))
	s.backend(web, model.ProtocolHTTP, e)
	dialled := s.guard(onRequests(accessPolicy("d", true,
		fromAccount("", &model.AccessRequest{Hosts: []string{"secret"}}),
		fromAccount("", pathIs(model.MatchPrefix, "/admin")),
		fromAccount("", &model.AccessRequest{Methods: []string{"DELETE"}}))))
	request := func(method, path, authority string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", authority}, more...)
	}
	cases := []struct {
		fields []string
		want   string // of statuses; "" is a stream that was reset
	}{
		{request("GET", "/", "web"), "200"},
		{request("GET", "/", "secret"), "403"},
		{request("GET", "/", "Secret.:1"), "403"},
		{request("GET", "/", "web", "host", "secret"), "200 400 403"},
		{request("GET", "/", "secret", "host", "web"), "400 403"},
		{[]string{":method", "GET", ":scheme", "http", ":path", "/", "host", "secret"}, "400 403"},
		{request("GET", "/", "web,secret"), "400 403"},
		{request("DELETE", "/", "web"), "403"},
		{request("delete", "/", "web"), "400"},
		{request("Delete", "/", "web"), "400"},
		{request("GET", "/admin", "web"), "403"},
		{request("GET", "http://web/admin", "web"), "400 403 404"},
		{request("GET", "admin", "web"), "400 403 404"},
		{request("GET", "", "web"), "400 403 404"},
		{request("GET", "/\xffadmin", "web"), "200 400 403"},
		{request("GET", "/Admin//x", "web"), "403"},
		{[]string{":method", "CONNECT", ":authority", "web:80"}, "400 403 404"},
		{[]string{
			":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/admin", ":authority", "web",
		}, "400 403 404"},
	}
	t.Run("requests", func(t *testing.T) {
		for n, tc := range cases {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				t.Parallel() // a connection that ends with an error takes 5 s
				got := overHTTP2(t, s.caller(clientID), dialled, tc.fields)
				if got != "" && !strings.Contains(tc.want, got) {
					t.Errorf("%q: %s, not %s", tc.fields, got, tc.want)
				}
			})
		}
	})
	mu.Lock()
	defer mu.Unlock()
	for _, request := range seen {
		for _, denied := range []string{"secret", "/admin", "delete"} {
			require.NotContains(t, strings.ToLower(request), denied)
		}
	}
}

// overHTTP2 is the status of a request of these fields; "" if there is none.
func overHTTP2(t *testing.T, c *caller, dialled string, fields []string) string {
	t.Helper()
	conn, err := c.dial(t.Context(), dialled)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for n := 0; n < len(fields); n += 2 {
		require.NoError(t, enc.WriteField(hpack.HeaderField{Name: fields[n], Value: fields[n+1]}))
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: fields[1] != "CONNECT",
	})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return ""
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
}
