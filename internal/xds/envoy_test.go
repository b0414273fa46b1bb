// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// onSocket serves a new server on a Unix socket to whoever connects.
func onSocket(t *testing.T) (*fixture, string) {
	t.Helper()
	f := &fixture{t: t, cache: NewCache()}
	f.server = NewServer(Options{Cache: f.cache, Authenticator: AuthenticatorFunc(func(context.Context) (Proxy, error) {
		return Proxy{Scope: testScope, Pod: "ns/envoy"}, nil
	})})
	dir, err := os.MkdirTemp("", "xds")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "xds.sock")
	lis, err := net.Listen("unix", socket)
	require.NoError(t, err)
	g := grpc.NewServer(GRPCOptions(0)...)
	f.server.Register(g)
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	return f, socket
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func edsCluster(t testing.TB, name string, timeout time.Duration) *Resource {
	return edsClusterNamed(t, name, "eds/"+name, timeout)
}

func edsClusterNamed(t testing.TB, name, endpoints string, timeout time.Duration) *Resource {
	return must(t, name, &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(timeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: endpoints},
	})
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	require.NoError(t, err)
	return a
}

func socketAddress(port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func assignment(t testing.TB, name string, ports ...int) *Resource {
	var eps []*endpointv3.LbEndpoint
	for _, p := range ports {
		eps = append(eps, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socketAddress(p)},
		}})
	}
	return must(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{LbEndpoints: eps},
	}})
}

func httpListener(t testing.TB, name string, port int, routes string) *Resource {
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: routes, ConfigSource: ads()}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}},
		},
	}
	return must(t, name, &listenerv3.Listener{
		Name: name, Address: socketAddress(port),
		FilterChains: []*listenerv3.FilterChain{
			{Filters: []*listenerv3.Filter{
				{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, hcm)}},
			}},
		},
	})
}

func routes(t testing.TB, name, cluster string) *Resource {
	return must(t, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{
				Cluster: cluster,
			}}},
		}},
	}}})
}

func TestEnvoy(t *testing.T) {
	xdstest.Binary(t)
	f, socket := onSocket(t)
	one, two, port := xdstest.Backend(t, "one"), xdstest.Backend(t, "two"), xdstest.FreePort(t)
	f.apply(
		edsCluster(t, "one", time.Second), edsCluster(t, "two", time.Second),
		assignment(t, "eds/one", one), assignment(t, "eds/two", two),
		httpListener(t, "web", port, "web"), routes(t, "web", "one"),
	)
	f.ready(TypeCluster, TypeListener)
	e := xdstest.Start(t, xdstest.Options{XDSSocket: socket, Wildcards: true})
	acked := func(typeURL, name string) func() bool {
		return func() bool {
			s := f.server.State(testScope.Key(typeURL, name))
			return len(s.Proxies) == 1 && s.Proxies[0].State == Acked
		}
	}
	for typeURL, name := range map[string]string{
		TypeCluster: "one", TypeEndpoint: "eds/one", TypeListener: "web",
		TypeRoute: "web",
	} {
		e.Eventually("ACK of "+name, acked(typeURL, name))
	}
	e.Eventually("traffic", func() bool { return xdstest.Fetch(port) == "200 one" })

	t.Run("a route update reaches traffic", func(t *testing.T) {
		f.apply(routes(t, "web", "two"))
		e.Eventually("traffic to two", func() bool { return xdstest.Fetch(port) == "200 two" })
		e.Eventually("ACK", acked(TypeRoute, "web"))
	})

	t.Run("a bad cluster is isolated", func(t *testing.T) {
		bad := must(t, "bad", &clusterv3.Cluster{Name: "bad", ConnectTimeout: durationpb.New(-time.Second)})
		f.apply(edsCluster(t, "good-1", time.Second), bad, edsCluster(t, "good-2", time.Second),
			assignment(t, "eds/good-1", one), assignment(t, "eds/good-2", two))
		e.Eventually("NACK", func() bool { return f.server.State(testScope.Key(TypeCluster, "bad")).Rejection() != "" })
		e.Eventually("ACK of good-1", acked(TypeCluster, "good-1"))
		e.Eventually("ACK of good-2", acked(TypeCluster, "good-2"))
		e.Eventually("good clusters run", func() bool {
			active := e.Active("dynamic_active_clusters")
			return active["good-1"] && active["good-2"] && !active["bad"]
		})
		require.Equal(t, "Invalid duration: Expected positive duration: seconds: -1",
			f.server.State(testScope.Key(TypeCluster, "bad")).Rejection())
	})

	t.Run("a bad route keeps the last good one", func(t *testing.T) {
		bad := must(t, "web", &routev3.RouteConfiguration{Name: "web", VirtualHosts: []*routev3.VirtualHost{
			{Name: "a", Domains: []string{"*"}}, {Name: "b", Domains: []string{"*"}},
		}})
		f.apply(bad)
		e.Eventually("NACK", func() bool { return f.server.State(testScope.Key(TypeRoute, "web")).Rejection() != "" })
		require.Equal(t, "200 two", xdstest.Fetch(port))
		f.apply(routes(t, "web", "one"))
		e.Eventually("traffic to one", func() bool { return xdstest.Fetch(port) == "200 one" })
	})

	t.Run("a changed cluster does not warm without end", func(t *testing.T) {
		start := time.Now()
		f.apply(edsCluster(t, "one", 3*time.Second))
		e.Eventually("ACK", acked(TypeCluster, "one"))
		e.Eventually("active", func() bool {
			return !e.Active("dynamic_warming_clusters")["one"] && e.Active("dynamic_active_clusters")["one"]
		})
		t.Logf("active after %s", time.Since(start))
		require.Less(t, time.Since(start), 10*time.Second, "the cluster waited for its initial fetch timeout")
	})

	t.Run("a second cluster of the same endpoints does not warm without end", func(t *testing.T) {
		start := time.Now()
		second := edsClusterNamed(t, "second", "eds/one", time.Second)
		f.apply(second)
		e.Eventually("active", func() bool { return e.Active("dynamic_active_clusters")["second"] })
		require.Less(t, time.Since(start), 10*time.Second, "the cluster waited for its initial fetch timeout")
	})

	t.Run("a removal comes after its last use", func(t *testing.T) {
		f.cache.Apply(testScope, []Update{
			Gone(ID{TypeCluster, "one"}), Gone(ID{TypeEndpoint, "eds/one"}), Set(routes(t, "web", "two")),
		})
		e.Eventually("gone", func() bool { return !e.Active("dynamic_active_clusters")["one"] })
		require.Equal(t, "200 two", xdstest.Fetch(port))
	})
}
