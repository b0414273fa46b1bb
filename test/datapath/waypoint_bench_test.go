// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// BenchmarkWaypoint is the CPU of all proxies on the way of an HTTP request, with what the kernel does for them:
// through both nodes' and a waypoint (L7), beside both nodes' alone (L4), and through the least that stock Envoy needs
// in the waypoint's place (floor). In turn, medians of several rounds.
func BenchmarkWaypoint(b *testing.B) {
	m := newMesh(b)
	client, server := m.nodes[0].newMember("client", false), m.nodes[1].newMember("server", false)
	straight := netip.MustParseAddrPort("10.96.0.1:80")
	through := netip.MustParseAddrPort("10.96.0.2:80")
	least := netip.MustParseAddrPort("10.96.0.3:80")
	m.service("straight", straight, portEcho, server)
	nodes := []*proxy{m.nodes[0].proxy, m.nodes[1].proxy}
	l4 := pair{"L4", client, server, nodes}
	by := func(name string, at netip.AddrPort, change func(*listenerv3.Listener)) pair {
		w := m.nodes[1].waypoint("waypoint-"+strings.ToLower(name), at, server, change)
		return pair{name, client, server, append(slices.Clone(nodes), w)}
	}
	l7 := by("L7", through, func(*listenerv3.Listener) {})
	bare := by("floor", least, func(l *listenerv3.Listener) { leastManager(b, l) })
	manyPorts(b, client, server)
	answer := make([]byte, 1024)
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(answer)
	})}
	l := server.listen(portEcho)
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	at := map[string]netip.AddrPort{l4.name: straight, l7.name: through, bare.name: least}
	for _, to := range at {
		eventually.NoError(b, "requests are answered", func() error {
			_, err := asked(client, to, time.Now(), false)
			return err
		})
	}
	for _, row := range []struct {
		name     string
		parallel int
		anew     bool
	}{{"1 kept connection", 1, false}, {"64 kept connections", 64, false}, {"new connections, 16 at a time", 16, true}} {
		b.Run(row.name, func(b *testing.B) {
			inTurn(b, "request", func(p pair, until time.Time) (float64, error) {
				return each(row.parallel, func() (int64, error) { return asked(client, at[p.name], until, row.anew) })
			}, l7, l4, bare)
		})
	}
}

// leastManager has a waypoint send whatever is asked on, and nothing else.
func leastManager(t testing.TB, l *listenerv3.Listener) {
	router := &hcmv3.HttpFilter{
		Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoy.Any(&routerv3.Router{})},
	}
	all := &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: names.ServicePort("default", "web", 80)},
		}},
	}
	least := envoy.Any(&hcmv3.HttpConnectionManager{
		StatPrefix: "least", HttpFilters: []*hcmv3.HttpFilter{router},
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{all}}},
		}},
	})
	changed := 0
	for _, c := range l.GetFilterChains() {
		for _, f := range c.GetFilters() {
			if f.GetTypedConfig().MessageIs(&hcmv3.HttpConnectionManager{}) {
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: least}
				changed++
			}
		}
	}
	require.NotZero(t, changed)
}

// asked sends requests of 1 KiB until a time, one at least, on one connection or a new one for each, and counts them.
func asked(from *pod, to netip.AddrPort, until time.Time, anew bool) (n int64, err error) {
	const head = "POST /shop/cart HTTP/1.1\r\nhost: web\r\ncontent-length: 1024\r\n\r\n"
	request := append([]byte(head), make([]byte, 1024)...)
	var c net.Conn
	var r *bufio.Reader
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for ; n == 0 || time.Now().Before(until); n++ {
		if c == nil || anew {
			if c != nil {
				_ = c.Close()
			}
			if c, err = from.dial(to.String()); err != nil {
				return n, err
			}
			r = bufio.NewReader(c)
		}
		if _, err = c.Write(request); err != nil {
			return n, err
		}
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return n, err
		}
		if _, err = io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			return n, fmt.Errorf("%s: %w", answer.Status, err)
		}
	}
	return n, nil
}

// waypoint runs one in a pod of the node, for a Service's address behind which is a server, with a listener that is
// changed.
func (n *meshNode) waypoint(name string, vip netip.AddrPort, server *pod, change func(*listenerv3.Listener)) *proxy {
	m, t := n.mesh, n.mesh.t
	p := n.newPod(name)
	id := names.SPIFFEID(trustDomain, "default", p.name)
	scope := catalogue.WaypointScope(types.NamespacedName{Namespace: "default", Name: p.name})
	socket := filepath.Join(t.TempDir(), "xds.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	x := xds.NewServer(xds.Options{
		Cache: m.cache, Log: logr.Discard(),
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: scope, Pod: "default/" + p.name, PodUID: p.name, Node: n.name}, nil
		}),
		OnAck: func(a xds.Ack) {
			if a.Error != "" {
				t.Errorf("a waypoint rejects %s %s: %s", a.TypeURL, a.Name, a.Error)
			}
		},
	})
	g := grpc.NewServer(xds.GRPCOptions(0)...)
	x.Register(g)
	n.counter.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)

	web := model.ServicePort{Namespace: "default", Service: "web", Port: vip.Port()}
	m.serves(scope, id, web, server, change)
	admin := filepath.Join(t.TempDir(), "admin.sock")
	config, err := bootstrap.Marshal(bootstrap.Bootstrap(bootstrap.Options{
		ID: p.name, Cluster: string(scope), XDSSocket: socket, AdminSocket: admin, WildcardClusters: true,
		Memory: 2 << 30, Listeners: waypoint.KeyListeners(filepath.Join(t.TempDir(), "fetch.sock")),
		Clusters: waypoint.KeyClusters(filepath.Join(t.TempDir(), "keys.sock")),
	}))
	require.NoError(t, err)
	out := runEnvoy(t, p.name, p.ns, config, admin)

	own := model.ServicePort{Namespace: "default", Service: p.name, Port: names.PortMTLS}
	m.endpoints(own, model.Endpoint{Address: p.at(names.PortMTLS), MTLS: true, Identity: id})
	m.destination(model.Destination{
		Address: vip, Kind: model.DestinationWaypoint, Port: own, Service: web, Identities: []string{id},
	})
	return out
}

// serves says what a waypoint has that serves a port without a route, whose endpoint is the server.
func (m *mesh) serves(
	scope xds.Scope, id string, web model.ServicePort, server *pod, change func(*listenerv3.Listener),
) {
	limits := model.HeaderLimits{KiB: uint32(v1alpha1.DefaultHeaderKiB), Count: uint32(v1alpha1.DefaultHeaderCount)}
	table := model.RouteTable{Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP}
	routes, bad := route.Configuration(trustDomain, table)
	require.Empty(m.t, bad)
	u := model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Identities: []string{server.identity}}
	endpoint := model.Endpoint{Address: server.at(portEcho), MTLS: true, Identity: server.identity}
	cluster, scoped := upstream.ServicePort(u, id, limits), route.Scope(table.Attachment)
	listener := waypoint.MTLSListener(model.Waypoint{
		Identity: id, Headers: limits, Ports: []model.ServedPort{{ServicePort: web, Protocol: model.ProtocolHTTP}},
	})
	change(listener)
	none := model.Authentications{}
	for name, msg := range map[string]proto.Message{
		names.TrustBundleSecret: bundle(m.ca),
		id:                      m.secret(id, id),
		names.RuntimeLayer:      envoy.RuntimeLayer(true, true),
		names.AuthorizationTCP:  envoy.Extension(names.AuthorizationTCP, authorization.TCP(nil)),
		names.FilterForm:        envoy.Extension(names.FilterForm, authentication.Form(none)),
		names.FilterTokens:      envoy.Extension(names.FilterTokens, authentication.Tokens(none)),
		names.ListenerMTLS:      listener,
		names.WaypointEndpoints(web.Namespace, web.Service, web.Port): upstream.WaypointEndpoints(web,
			[]model.Endpoint{endpoint}),
	} {
		m.apply(scope, name, msg)
	}
	m.apply(scope, cluster.GetName(), cluster)
	m.apply(scope, routes.GetName(), routes)
	m.apply(scope, scoped.GetName(), scoped)
	for _, typeURL := range []string{
		xds.TypeCluster, xds.TypeEndpoint, xds.TypeListener, xds.TypeScopedRoute, xds.TypeRoute, xds.TypeSecret,
		xds.TypeRuntime, xds.TypeExtension,
	} {
		m.cache.Ready(scope, typeURL)
	}
}
