// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// filtered is the waypoint's listener with one more HTTP filter, the first.
func (w *world) filtered(f *hcmv3.HttpFilter) xds.Update {
	w.t.Helper()
	l := waypoint.MTLSListener(w.model())
	m := &hcmv3.HttpConnectionManager{}
	if err := proto.Unmarshal(managerOf(l).GetTypedConfig().GetValue(), m); err != nil {
		w.t.Fatal(err)
	}
	m.HttpFilters = append([]*hcmv3.HttpFilter{f}, m.GetHttpFilters()...)
	managerOf(l).ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(m)}
	return resource(w.t, names.ListenerMTLS, l)
}

// policy lets requests pass that are made by an identity; nobody's without one.
func policy(id string) *httprbacv3.RBAC {
	r := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}
	if id != "" {
		r.Policies = map[string]*rbacv3.Policy{"callers": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
			Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Authenticated_{
				Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: envoy.SPIFFEIDs(id)[0].GetMatcher()},
			}}},
		}}
	}
	return &httprbacv3.RBAC{Rules: r}
}

func extension(t testing.TB, m proto.Message) xds.Update {
	t.Helper()
	return resource(t, "policy", &corev3.TypedExtensionConfig{Name: "policy", TypedConfig: envoy.Any(m)})
}

// TestHTTPFilterByECDS: a filter of the connection manager changes, the next request on an open connection follows, and
// nothing that is open notices.
func TestHTTPFilterByECDS(t *testing.T) {
	s := newShop(t)
	release := make(chan struct{})
	stream, _ := s.pod(appID, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin\n")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "end\n")
	}))
	slow := model.ServicePort{Namespace: "shop", Service: "slow", Port: 80}
	s.backend(slow, model.ProtocolHTTP, stream)
	dialled := s.serve(web, true, &model.RouteTable{
		Attachment: model.Attachment{Port: web},
		Default:    pointers([]model.Rule{rule(below("/slow"), nil, to(slow, 1)), rule(below("/"), nil, to(webV1, 1))}),
	})
	listener := s.filtered(envoy.HTTPFilterByECDS("policy", &httprbacv3.RBAC{}))
	set := func(m proto.Message) { t.Helper(); u := extension(t, m); s.apply(u); s.acknowledged(u) }
	s.apply(listener)
	set(policy(clientID))
	s.acknowledged(listener)

	// The new filter chain is taken into use a moment after its policy came.
	eventually.True(s.t, "the policy", func() bool {
		return do(t, s.caller(appID).client(t, dialled, nil), "GET", "http://web/").status == http.StatusForbidden
	})
	changes := s.stats("listener_manager.listener_")
	c := &counted{t: t, client: s.caller(clientID).client(t, dialled, nil)}
	long := c.ask("/slow")
	defer func() { _ = long.Body.Close() }()
	in := bufio.NewReader(long.Body)
	if line, err := in.ReadString('\n'); err != nil || line != "begin\n" {
		t.Fatalf("%q, %v", line, err)
	}
	before := c.status()
	set(policy(""))
	closed := c.status()
	bad := extension(t, &hcmv3.HttpConnectionManager{})
	s.apply(bad)
	eventually.True(s.t, "the rejection of a bad policy", func() bool {
		text := s.server.State(scope.Key(xds.TypeExtension, "policy")).Rejection()
		return strings.Contains(text, "filter config has type URL")
	})
	kept := c.status()
	set(policy(clientID))
	if got := fmt.Sprint(before, closed, kept, c.status()); got != "200 403 403 200" {
		t.Errorf("before, closed, with a bad policy, and open again: %s", got)
	}
	close(release)
	if line, err := in.ReadString('\n'); err != nil || line != "end\n" {
		t.Errorf("the open answer: %q, %v", line, err)
	}
	if c.connections != 2 {
		t.Errorf("%d connections, not one for each request that was open at a time", c.connections)
	}
	if now := s.stats("listener_manager.listener_"); now != changes {
		t.Errorf("listeners changed: %s, and before %s", now, changes)
	}
}

// counted is a client that counts the connections that it opens.
type counted struct {
	t           testing.TB
	client      *http.Client
	connections int
}

func (c *counted) ask(path string) *http.Response {
	c.t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			c.connections++
		}
	}}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web"+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// status of the answer to a request.
func (c *counted) status() int {
	c.t.Helper()
	resp := c.ask("/")
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// stats are the proxy's, of a name.
func (w *world) stats(name string) string {
	w.t.Helper()
	return w.ask("/stats?filter=" + name)
}

// ask Envoy's admin interface.
func (w *world) ask(path string) string {
	w.t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.admin)
	}}}
	resp, err := c.Get("http://localhost" + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}
