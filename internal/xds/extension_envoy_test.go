// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

func extension(t testing.TB, name string, m proto.Message) *Resource {
	return must(t, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(t, m)})
}

// rules of a filter: all pass, or none.
func rules(pass bool) *rbacv3.RBAC {
	r := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}
	if pass {
		r.Policies = map[string]*rbacv3.Policy{"all": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
			Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}}
	}
	return r
}

func httpPolicy(t testing.TB, pass bool) *Resource {
	return extension(t, "http-policy", &httprbacv3.RBAC{Rules: rules(pass)})
}

func netPolicy(t testing.TB, pass bool) *Resource {
	return extension(t, "net-policy", &netrbacv3.RBAC{StatPrefix: "policy", Rules: rules(pass)})
}

func guardedHTTP(t testing.TB, port int, filters ...*hcmv3.HttpFilter) *Resource {
	t.Helper()
	return httpListenerNamed(t, "http", port, filters...)
}

// httpListenerNamed answers by itself what its filters let through.
func httpListenerNamed(t testing.TB, name string, port int, filters ...*hcmv3.HttpFilter) *Resource {
	t.Helper()
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "guarded",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
					Status: 200, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "in"}},
				}},
			}}}},
		}},
		HttpFilters: append(filters, envoy.HTTPFilter("router", &routerv3.Router{})),
	}
	return must(t, name, &listenerv3.Listener{
		Name: name, Address: socketAddress(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{envoy.NetworkFilter("hcm", hcm)}}},
	})
}

func guardedTCP(t testing.TB, name string, port int, cluster, policy string) *Resource {
	t.Helper()
	return must(t, name, &listenerv3.Listener{
		Name: name, Address: socketAddress(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			envoy.NetworkFilterByECDS(policy, &netrbacv3.RBAC{}),
			envoy.NetworkFilter("tcp", &tcpproxyv3.TcpProxy{
				StatPrefix: "tcp", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
			}),
		}}},
	})
}

// conversation is one connection, kept open.
type conversation struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func converse(t testing.TB, port int) *conversation {
	t.Helper()
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &conversation{t, conn, bufio.NewReader(conn)}
}

// ask sends a request on the connection and returns the status of its answer.
func (c *conversation) ask() int {
	c.t.Helper()
	_, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(c.t, err)
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(c.t, err, "the connection is cut")
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(c.t, err)
	return resp.StatusCode
}

// nothingDrains tells that no listener was replaced, changed or drained.
func nothingDrains(t testing.TB, e *xdstest.Envoy) {
	t.Helper()
	text, err := e.Get("/stats?filter=listener_manager")
	require.NoError(t, err)
	for _, name := range []string{
		"listener_modified", "listener_in_place_updated", "listener_removed",
		"total_listeners_draining", "total_filter_chains_draining",
	} {
		require.Contains(t, text, "listener_manager."+name+": 0\n")
	}
}

// guardedEnvoy is a real Envoy with an HTTP and a TCP port, each with a policy by ECDS.
type guardedEnvoy struct {
	*fixture
	*xdstest.Envoy
	http, tcp int
}

// acked waits until Envoy runs a resource as it is.
func (g *guardedEnvoy) acked(t testing.TB, r *Resource) {
	t.Helper()
	g.Eventually("ACK of "+r.Name(), func() bool {
		s := g.server.State(testScope.Key(r.TypeURL(), r.Name()))
		return len(s.Proxies) == 1 && s.Proxies[0].State == Acked && s.Proxies[0].Version == r.Version()
	})
}

func (g *guardedEnvoy) set(t testing.TB, r *Resource) {
	t.Helper()
	g.apply(r)
	g.acked(t, r)
}

// rejected is what Envoy says of a resource that it doesn't take.
func (g *guardedEnvoy) rejected(t testing.TB, r *Resource) (text string) {
	t.Helper()
	g.apply(r)
	g.Eventually("NACK of "+r.Name(), func() bool {
		text = g.server.State(testScope.Key(r.TypeURL(), r.Name())).Rejection()
		return text != ""
	})
	return text
}

// TestExtensionsOnEnvoy holds what is told of ECDS in docs/design/extension-configs.md.
func TestExtensionsOnEnvoy(t *testing.T) {
	xdstest.Binary(t)
	f, socket := onSocket(t)
	g := &guardedEnvoy{fixture: f, http: xdstest.FreePort(t), tcp: xdstest.FreePort(t)}
	f.apply(edsCluster(t, "echo", time.Second), assignment(t, "eds/echo", echoServer(t)),
		guardedTCP(t, "tcp", g.tcp, "echo", "net-policy"),
		guardedHTTP(t, g.http, envoy.HTTPFilterByECDS("http-policy", &httprbacv3.RBAC{})))
	f.ready(TypeCluster, TypeListener)
	g.Envoy = xdstest.Start(t, xdstest.Options{XDSSocket: socket, Wildcards: true})

	for name, port := range map[string]int{"http-policy": g.http, "net-policy": g.tcp} { // Envoy asks, and waits
		g.Eventually("listeners", func() bool { return len(f.server.State(testScope.Key(TypeExtension, name)).Proxies) == 1 })
		_, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		require.Error(t, err, "a connection before the first configuration")
	}
	g.set(t, httpPolicy(t, true))
	g.set(t, netPolicy(t, true))
	g.Eventually("traffic", func() bool { return xdstest.Fetch(g.http) == "200 in" })

	t.Run("the next request of an open connection meets another HTTP filter", g.nextRequest)
	t.Run("a connection keeps the network filter that it began with", g.nextConnection)
	t.Run("the last good one stays", g.lastGood)
	t.Run("a first one that is rejected lets nothing through", g.noneGood)
	t.Run("what drains keeps what it has", g.draining)
}

func (g *guardedEnvoy) nextRequest(t *testing.T) {
	c := converse(t, g.http)
	require.Equal(t, 200, c.ask())
	g.set(t, httpPolicy(t, false))
	require.Equal(t, 403, c.ask())
	g.set(t, httpPolicy(t, true))
	require.Equal(t, 200, c.ask())
	nothingDrains(t, g.Envoy)
}

func (g *guardedEnvoy) nextConnection(t *testing.T) {
	before := converse(t, g.tcp)
	require.Equal(t, "a", before.echo("a"))
	g.set(t, netPolicy(t, false))
	require.Equal(t, "b", before.echo("b"), "it is not cut")
	require.Empty(t, converse(t, g.tcp).echo("c"), "a new one is refused")
	g.set(t, netPolicy(t, true))
	require.Equal(t, "d", converse(t, g.tcp).echo("d"))
	nothingDrains(t, g.Envoy)
}

func (g *guardedEnvoy) lastGood(t *testing.T) {
	g.set(t, httpPolicy(t, false))
	c := converse(t, g.http)
	bad := extension(t, "http-policy", &clusterv3.Cluster{})
	require.Contains(t, g.rejected(t, bad), "filter config has type URL")
	require.Equal(t, 403, c.ask())
	g.set(t, httpPolicy(t, true))
	require.Equal(t, 200, c.ask())
	nothingDrains(t, g.Envoy)
}

func (g *guardedEnvoy) noneGood(t *testing.T) {
	port := xdstest.FreePort(t)
	g.apply(httpListenerNamed(t, "other", port, envoy.HTTPFilterByECDS("other-policy", &httprbacv3.RBAC{})))
	g.rejected(t, extension(t, "other-policy", &clusterv3.Cluster{}))
	g.Eventually("an answer", func() bool { return xdstest.Fetch(port) == "500 " })

	port = xdstest.FreePort(t)
	g.apply(guardedTCP(t, "other-tcp", port, "echo", "other-net-policy"))
	g.rejected(t, extension(t, "other-net-policy", &clusterv3.Cluster{}))
	g.Eventually("the listener", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	require.Empty(t, converse(t, port).echo("a"))
}

// draining has the filter taken out of a listener, and its configuration away.
func (g *guardedEnvoy) draining(t *testing.T) {
	c := converse(t, g.http)
	require.Equal(t, 200, c.ask())
	without := guardedHTTP(t, g.http)
	g.cache.Apply(testScope, []Update{Set(without), Gone(ID{TypeExtension, "http-policy"})})
	g.acked(t, without)
	for _, pass := range []bool{false, true, false} { // a removal would be between these
		g.set(t, netPolicy(t, pass))
	}
	require.Equal(t, 200, c.ask())
}

// echo sends a line and returns what comes back; empty if the connection ends.
func (c *conversation) echo(line string) string {
	c.t.Helper()
	_, _ = io.WriteString(c.conn, line+"\n")
	back, _ := c.in.ReadString('\n')
	return strings.TrimSpace(back)
}

func echoServer(t testing.TB) int {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = lis.Close() })
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return lis.Addr().(*net.TCPAddr).Port
}
