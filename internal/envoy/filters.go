// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
)

// Well-known filter state keys, with the meaning that Envoy gives them.
const (
	// FilterStateCluster picks tcp_proxy's cluster.
	FilterStateCluster = "envoy.tcp_proxy.cluster"
	// FilterStateOriginalDst is the address that an ORIGINAL_DST cluster connects to.
	FilterStateOriginalDst = "envoy.network.transport_socket.original_dst_address"
	// FilterStateCertificate names the secret that MTLSClientOnDemand presents.
	FilterStateCertificate = "envoy.tls.certificate_mappers.on_demand_secret"
	// FilterStateNetns is the path of the network namespace that upstream sockets are made in, for clusters with the
	// filter_state_override address selector.
	FilterStateNetns = "envoy.network.upstream_bind_override.network_namespace"

	// FactoryHashableString makes a string that takes part in the key of a connection pool, so that connections are
	// never shared between values.
	FactoryHashableString = "envoy.hashable_string"
	// FactoryString makes a string for any key.
	FactoryString = "envoy.string"
)

// HeadersTimeout bounds how long a request's headers may take from their first byte to the last.
const HeadersTimeout = 30 * time.Second

// Ended makes tcp_proxy the end of an mTLS connection: it connects on only when the handshake has proved who the peer
// is, and an end of either side passes on as it came, half closed as half closed. How long a connection may be idle is
// the application's business.
func Ended(p *tcpproxyv3.TcpProxy) *listenerv3.Filter {
	p.UpstreamConnectMode = tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
	p.MaxEarlyDataBytes = UInt32(0) // what the peer sends before that waits in the kernel
	p.IdleTimeout = Duration(0)
	return NetworkFilter("envoy.filters.network.tcp_proxy", p)
}

// HTTPFilter is an HTTP filter with its configuration.
func HTTPFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Any(m)}}
}

// HTTPFilterWhereConfigured is an HTTP filter that requests pass only where their route, its virtual host or its table
// has a configuration for it (HttpFilter.disabled). For all others it isn't there, and costs nothing.
func HTTPFilterWhereConfigured(name string, m proto.Message) *hcmv3.HttpFilter {
	f := HTTPFilter(name, m)
	f.Disabled = true
	return f
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

// Filter state stays with the connection, or goes to the upstream connection.
const (
	SharedNot  = statev3.FilterStateValue_NONE
	SharedOnce = statev3.FilterStateValue_ONCE
)

// FilterState is one entry of filter state; the value may use access log operators. An empty factory means the key's
// own.
func FilterState(key, factory, value string, sharing Sharing) *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey:         factory,
		Value:              &statev3.FilterStateValue_FormatString{FormatString: inlineString(value)},
		SharedWithUpstream: sharing,
	}
}

// PlainState is a string of filter state in a format; "-" if it isn't there.
func PlainState(key string) string { return "%FILTER_STATE(" + key + ":PLAIN)%" }

// Literal escapes a string for where Envoy expects a format.
func Literal(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// SetFilterState is the network filter that sets filter state when a connection is accepted.
func SetFilterState(values ...*statev3.FilterStateValue) *listenerv3.Filter {
	return NetworkFilter(filterSetFilterState, &netstatev3.Config{OnNewConnection: values})
}

// SetFilterStateOfPeer is SetFilterState with further values, which are set when the handshake has proved who the peer
// is: in plain text at once, too. tcp_proxy has picked its cluster by then.
func SetFilterStateOfPeer(first, proved []*statev3.FilterStateValue) *listenerv3.Filter {
	return NetworkFilter(filterSetFilterState, &netstatev3.Config{
		OnNewConnection:          first,
		OnDownstreamTlsHandshake: proved,
	})
}

const filterSetFilterState = "envoy.filters.network.set_filter_state"

func inlineString(s string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: s},
		}},
	}
}
