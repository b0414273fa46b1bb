// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Well-known filter state keys, with the meaning that Envoy gives them.
const (
	// FilterStateCluster picks tcp_proxy's cluster.
	FilterStateCluster = "envoy.tcp_proxy.cluster"
	// FilterStateOriginalDst is the address that an ORIGINAL_DST cluster connects to.
	FilterStateOriginalDst = "envoy.network.transport_socket.original_dst_address"
	// FilterStateCertificate names the secret that HBONEClientOnDemand presents.
	FilterStateCertificate = "envoy.tls.certificate_mappers.on_demand_secret"
	// FilterStateNetns is the path of the network namespace that upstream sockets are made in, for clusters with the
	// filter_state_override address selector.
	FilterStateNetns = "envoy.network.upstream_bind_override.network_namespace"

	// FactoryHashableString makes a string that takes part in the key of a connection pool, so that connections are
	// never shared between values.
	FactoryHashableString = "envoy.hashable_string"
)

// HTTP2Options of HBONE on either side. Windows are per stream and per connection, in bytes; a connection carries many
// streams, so its window is larger. Pings find a dead peer within about 40 s, where TCP alone takes many minutes.
func HTTP2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		AllowConnect:                true,
		MaxConcurrentStreams:        UInt32(mostTunnels),
		InitialStreamWindowSize:     UInt32(1 << 20),
		InitialConnectionWindowSize: UInt32(16 << 20),
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: Duration(30 * time.Second),
			Timeout:  Duration(10 * time.Second),
		},
		StreamResetBurst: wrapperspb.UInt64(resetsPerSecond),
		StreamResetRate:  wrapperspb.UInt64(resetsPerSecond),
	}
}

// resetsPerSecond that a peer may send. Envoy's default (1000 at once, then 33 a second) ends the whole connection: in
// HBONE a reset is nothing but an application that broke off, and the connection carries everyone else's tunnels, too.
const resetsPerSecond = 1 << 20

// HTTP2Upstream are the protocol options of a cluster that HBONE goes to. Connections without a stream are closed after
// idle; zero keeps Envoy's default of one hour.
func HTTP2Upstream(idle time.Duration) map[string]*anypb.Any {
	o := &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: HTTP2Options(),
				},
			},
		},
	}
	if idle > 0 {
		o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: Duration(idle)}
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any(o)}
}

const (
	// HandshakeTimeout bounds how long a listener of HBONE waits for a peer's TLS: longer than any client of the mesh
	// waits. Until then a connection costs memory and a descriptor, and nobody has proved anything.
	HandshakeTimeout = 10 * time.Second
	// HeadersTimeout bounds how long a request's headers may take from their first byte to the last.
	HeadersTimeout = 30 * time.Second
)

// ConnectRoute terminates CONNECT and passes the bytes on to a cluster as TCP. It never times out: the life of a tunnel
// is the application's business.
func ConnectRoute(cluster string) *routev3.Route {
	return &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			Timeout:          Duration(0),
			UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{
				UpgradeType:   "CONNECT",
				ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
			}},
		}},
	}
}

// ConnectRefused answers CONNECT with a status.
func ConnectRefused(status uint32) *routev3.Route {
	return &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}},
	}
}

// ConnectManager is the HTTP connection manager that terminates HBONE. Filters run before the router, which it adds; the
// caller sets the route specifier. Idle tunnels live on. The peer's address is that of its connection: a peer could write what
// it likes into x-forwarded-for, which is not read; and since CONNECT ends here, no header of it goes any further.
func ConnectManager(statPrefix string, filters []*hcmv3.HttpFilter, logs ...*accesslogv3.AccessLog) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:            statPrefix,
		CodecType:             hcmv3.HttpConnectionManager_HTTP2,
		Http2ProtocolOptions:  HTTP2Options(),
		UpgradeConfigs:        []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "CONNECT"}},
		StreamIdleTimeout:     Duration(0),
		RequestHeadersTimeout: Duration(HeadersTimeout),
		// A peer that opens a connection and asks for nothing is let go; peers keep one open for as long as they use it.
		CommonHttpProtocolOptions:  &corev3.HttpProtocolOptions{IdleTimeout: Duration(time.Hour)},
		GenerateRequestId:          Bool(false),
		SkipXffAppend:              true,
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		HttpFilters:                append(filters, HTTPFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true})),
		AccessLog:                  logs,
	}
	TrustNoCaller(m)
	return m
}

// HTTPFilter is an HTTP filter with its configuration.
func HTTPFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Any(m)}}
}

// NetworkFilter is a network filter with its configuration.
func NetworkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: Any(m)}}
}

// ListenerFilter is a listener filter with its configuration.
func ListenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: Any(m)}}
}

// Sharing tells how far filter state travels.
type Sharing = statev3.FilterStateValue_SharedWithUpstream

// Filter state stays with the connection, goes to the upstream connection, or through internal listeners beyond it.
const (
	SharedNot        = statev3.FilterStateValue_NONE
	SharedOnce       = statev3.FilterStateValue_ONCE
	SharedTransitive = statev3.FilterStateValue_TRANSITIVE
)

// FilterState is one entry of filter state; the value may use access log operators. An empty factory means the key's own.
func FilterState(key, factory, value string, sharing Sharing) *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey:         factory,
		Value:              &statev3.FilterStateValue_FormatString{FormatString: inlineString(value)},
		SharedWithUpstream: sharing,
	}
}

// Literal escapes a string for where Envoy expects a format.
func Literal(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// SetFilterState is the network filter that sets filter state when a connection is accepted.
func SetFilterState(values ...*statev3.FilterStateValue) *listenerv3.Filter {
	return NetworkFilter("envoy.filters.network.set_filter_state", &netstatev3.Config{OnNewConnection: values})
}

func inlineString(s string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: s},
		}},
	}
}
