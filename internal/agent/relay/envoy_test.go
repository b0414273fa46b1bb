// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// TestEnvoyThroughTheRelay runs a real Envoy: listeners from the agent, clusters, endpoints and routes from the
// operator.
func TestEnvoyThroughTheRelay(t *testing.T) {
	xdstest.Binary(t)
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, Local: []string{xds.TypeListener, xds.TypeSecret}})
	one, two, port := xdstest.Backend(t, "one"), xdstest.Backend(t, "two"), xdstest.FreePort(t)
	o.apply(edsCluster(t, "one"), edsCluster(t, "two"), assignment(t, "one", one), assignment(t, "two", two),
		routeTo(t, "one"))
	o.cache.Ready(nodeScope, xds.TypeCluster)
	web := httpListener(t, port)
	a.SetLocal(xds.TypeListener, updates(web))
	a.LocalReady(xds.TypeListener)
	start := func() *xdstest.Envoy {
		return xdstest.Start(t, xdstest.Options{XDSSocket: a.socket, Wildcards: true})
	}
	e := start()
	require.NoError(t, a.WaitAcked(t.Context(), xds.ID{TypeURL: xds.TypeListener, Name: web.Name()}))
	e.Eventually("traffic", func() bool { return xdstest.Fetch(port) == "200 one" })
	e.Eventually("ACKs at the operator", func() bool { s, _ := o.state(routeTo(t, "one")); return s == xds.Acked })

	bad := must(t, "bad", &clusterv3.Cluster{Name: "bad", ConnectTimeout: durationpb.New(-time.Second)})
	broken := must(t, "web", &routev3.RouteConfiguration{Name: "web", VirtualHosts: []*routev3.VirtualHost{
		{Name: "a", Domains: []string{"*"}}, {Name: "b", Domains: []string{"*"}},
	}})
	fine := edsCluster(t, "fine")
	o.apply(bad, fine, assignment(t, "fine", two), broken)
	e.Eventually("NACKs at the operator", func() bool {
		s1, text1 := o.state(bad)
		s2, text2 := o.state(broken)
		return s1 == xds.Rejected && contains(text1, "Invalid duration") && s2 == xds.Rejected &&
			contains(text2, "wildcard domain")
	})
	e.Eventually("the good one", func() bool { s, _ := o.state(fine); return s == xds.Acked })
	require.Equal(t, "200 one", xdstest.Fetch(port))

	o.stop()
	e.Stop()
	e = start()
	e.Eventually("traffic of a restarted Envoy, the operator away",
		func() bool { return xdstest.Fetch(port) == "200 one" })
	moved := routeTo(t, "two")
	o.apply(moved)
	o.start()
	e.Eventually("the change that was made meanwhile", func() bool { return xdstest.Fetch(port) == "200 two" })
	e.Eventually("ACK", func() bool { s, _ := o.state(moved); return s == xds.Acked })
	e.Eventually("NACK again", func() bool { s, _ := o.state(bad); return s == xds.Rejected })
}

// TestOnDemandClusterThroughTheRelay lets Envoy ask for a cluster at its first connection.
func TestOnDemandClusterThroughTheRelay(t *testing.T) {
	xdstest.Binary(t)
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	port, one := xdstest.FreePort(t), xdstest.Backend(t, "one")
	e := xdstest.Start(t, xdstest.Options{XDSSocket: a.socket, Listeners: []any{onDemandListener(port)}})
	o.apply(edsCluster(t, "demand"), assignment(t, "demand", one))
	e.Eventually("traffic", func() bool { return xdstest.Fetch(port) == "200 one" })
	require.True(t, o.wants(xds.TypeCluster, "demand"))
	require.False(t, o.wants(xds.TypeCluster, xds.Wildcard))
	o.stop()
	e.Stop()
	e = xdstest.Start(t, xdstest.Options{XDSSocket: a.socket, Listeners: []any{onDemandListener(port)}})
	e.Eventually("traffic of a restarted Envoy, the operator away",
		func() bool { return xdstest.Fetch(port) == "200 one" })
}

type object = map[string]any

func onDemandListener(port int) any {
	return object{
		"name":    "demand",
		"address": object{"socket_address": object{"address": "127.0.0.1", "port_value": port}},
		"filter_chains": []any{object{"filters": []any{object{"name": "tcp", "typed_config": object{
			"@type":       "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
			"stat_prefix": "demand", "cluster": "demand",
			"on_demand": object{"odcds_config": object{"ads": object{}, "resource_api_version": "V3"}, "timeout": "5s"},
		}}}}},
	}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func edsCluster(t testing.TB, name string) *xds.Resource { return edsClusterOf(t, name, "") }

// edsClusterOf has its endpoints from an assignment of another name.
func edsClusterOf(t testing.TB, name, assignment string) *xds.Resource {
	return must(t, name, &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: assignment},
	})
}

func socketAddress(port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func assignment(t testing.TB, name string, port int) *xds.Resource {
	return must(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{
			LbEndpoints: []*endpointv3.LbEndpoint{
				{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(port)}}},
			},
		},
	}})
}

func routeTo(t testing.TB, cluster string) *xds.Resource {
	return must(t, "web", &routev3.RouteConfiguration{Name: "web", VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{
				Cluster: cluster,
			}}},
		}},
	}}})
}

func httpListener(t testing.TB, port int) *xds.Resource {
	pack := func(m proto.Message) *anypb.Any {
		packed, err := anypb.New(m)
		require.NoError(t, err)
		return packed
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:     "web",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "web", ConfigSource: ads()}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})}},
		},
	}
	return must(t, "outbound/uid", &listenerv3.Listener{
		Name: "outbound/uid", Address: socketAddress(port),
		FilterChains: []*listenerv3.FilterChain{
			{Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(hcm)}}}},
		},
	})
}
