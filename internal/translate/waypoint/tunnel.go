// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TunnelListener takes the connections of this proxy to applications that it speaks TLS with, and puts them into mTLS
// to their pods: Envoy has no other way to speak TLS within TLS. It is told by the endpoint (upstream.TLSEndpoints) and
// knows no policy, so none changes it. A connection that is told nothing leads nowhere.
func TunnelListener() *listenerv3.Listener {
	told := func(key string) string { return "%DYNAMIC_METADATA(" + names.MetadataTunnel + ":" + key + ")%" }
	return &listenerv3.Listener{
		Name: names.ListenerTunnel,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{
			InternalListener: &listenerv3.Listener_InternalListenerConfig{},
		},
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		FilterChains: []*listenerv3.FilterChain{{
			Name: names.ListenerTunnel,
			Filters: []*listenerv3.Filter{
				envoy.SetFilterState(
					envoy.FilterState(envoy.FilterStateOriginalDst, "", told(names.MetadataTunnelAddress), envoy.SharedNot),
					envoy.FilterState(envoy.FilterStateServerName, "", told(names.MetadataTunnelServer), envoy.SharedNot),
					envoy.FilterState(envoy.FilterStateServerSANs, "", told(names.MetadataIdentity), envoy.SharedNot),
				),
				envoy.NetworkFilter("envoy.filters.network.tcp_proxy", &tcpproxyv3.TcpProxy{
					StatPrefix:       names.ListenerTunnel,
					ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: names.ClusterTunnel},
					IdleTimeout:      envoy.Duration(0), // the connection inside has its own
				}),
			},
		}},
	}
}
