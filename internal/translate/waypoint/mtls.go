// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/netip"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// filterStateRemoteAddress is what the original_dst listener filter makes the remote address of an internal connection.
const filterStateRemoteAddress = "envoy.filters.listener.original_dst.remote_ip"

// MTLSListener takes what members of the mesh send. The waypoint presents its own SPIFFE ID (the SDS name of its certificate); peers
// must have an identity of the same trust domain. An identity that is no SPIFFE ID gives a listener that lets nobody in.
// The server name that a peer asks for is a Service's port (names.ServerName), and leads to its InboundCluster; any other name
// leads nowhere, and the connection ends. It listens on the addresses given (0.0.0.0, ::, or both, as the cluster's families
// are), or on 0.0.0.0 without any.
func MTLSListener(identity string, addresses ...netip.Addr) *listenerv3.Listener {
	if len(addresses) == 0 {
		addresses = []netip.Addr{netip.IPv4Unspecified()}
	}
	more := make([]*listenerv3.AdditionalAddress, 0, len(addresses)-1)
	for _, a := range addresses[1:] {
		more = append(more, &listenerv3.AdditionalAddress{Address: envoy.Address(netip.AddrPortFrom(a, names.PortMTLS))})
	}
	l := &listenerv3.Listener{
		Name:                          names.ListenerMTLS,
		Address:                       envoy.Address(netip.AddrPortFrom(addresses[0], names.PortMTLS)),
		AdditionalAddresses:           more,
		TrafficDirection:              corev3.TrafficDirection_INBOUND,
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		FilterChains: []*listenerv3.FilterChain{{
			TransportSocket:               envoy.MTLSServer(identity, names.TrustBundleSecret, trustDomainOf(identity)),
			TransportSocketConnectTimeout: envoy.Duration(envoy.HandshakeTimeout),
			Filters: []*listenerv3.Filter{
				envoy.PeerLimit(),
				envoy.SetFilterStateOfPeer([]*statev3.FilterStateValue{
					envoy.FilterState(envoy.FilterStateCluster, "", names.PrefixInboundCluster+"%REQUESTED_SERVER_NAME%", envoy.SharedNot),
				}, []*statev3.FilterStateValue{
					// Shared once: it ends at the internal listener of the service port.
					envoy.FilterState(names.FilterStateSource, envoy.FactoryHashableString, "%DOWNSTREAM_PEER_URI_SAN%", envoy.SharedOnce),
					envoy.FilterState(names.FilterStateSourceIP, envoy.FactoryHashableString, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", envoy.SharedOnce),
					envoy.FilterState(filterStateRemoteAddress, "", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", envoy.SharedOnce),
				}),
				envoy.Ended(&tcpproxyv3.TcpProxy{
					StatPrefix:       names.ListenerMTLS,
					ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "unset"}, // the filter state decides
					AccessLog:        []*accesslogv3.AccessLog{envoy.StdoutErrors(refusedLog(), envoy.Flagged())},
				}),
			},
		}},
	}
	envoy.AwaitHello(l)
	return l
}

// InboundCluster leads from the mTLS listener to the internal listener of a service port.
func InboundCluster(p model.ServicePort) *clusterv3.Cluster {
	name := names.InboundCluster(p.Namespace, p.Service, p.Port)
	return &clusterv3.Cluster{
		Name:                                    name,
		ClusterDiscoveryType:                    &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                          envoy.Duration(connectTimeout),
		CircuitBreakers:                         circuitBreakers(),
		TransportSocket:                         envoy.Internal(),
		PerConnectionBufferLimitBytes:           envoy.UInt32(envoy.HeldBytes),
		PerConnectionBufferHighWatermarkTimeout: envoy.Duration(stalledTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{
				LbEndpoints: []*endpointv3.LbEndpoint{envoy.LbEndpoint(envoy.InternalAddress(listenerName(p), ""), nil)},
			}},
		},
	}
}

// TunnelListener takes connections to endpoints of the mesh, which leave in mTLS. What the endpoint's metadata says travels as filter
// state to the TLS connection: its address, the port that its pod's proxy is asked for, and the one SPIFFE ID that may answer
// there. Metadata that is missing reads "-", which is no address, port or identity, so it fails closed.
func TunnelListener() *listenerv3.Listener {
	metadata := func(key string) string { return "%DYNAMIC_METADATA(" + names.MetadataTunnel + ":" + key + ")%" }
	return &listenerv3.Listener{
		Name:                                    names.ListenerTunnel,
		ListenerSpecifier:                       internalListener(),
		PerConnectionBufferLimitBytes:           envoy.UInt32(envoy.HeldBytes),
		PerConnectionBufferHighWatermarkTimeout: envoy.Duration(stalledTimeout),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			envoy.SetFilterState(
				envoy.FilterState(envoy.FilterStateOriginalDst, "", metadata(names.MetadataMTLS), envoy.SharedOnce),
				envoy.FilterState(filterStateServerSAN, "", metadata(names.MetadataIdentity), envoy.SharedOnce),
				envoy.FilterState(envoy.FilterStateServerName, "", metadata(names.MetadataPort), envoy.SharedOnce),
			),
			envoy.NetworkFilter(filterTCPProxy, &tcpproxyv3.TcpProxy{
				StatPrefix:       names.ListenerTunnel,
				ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: names.ClusterTunnel},
				IdleTimeout:      envoy.Duration(0),
				AccessLog:        []*accesslogv3.AccessLog{envoy.StdoutErrors(tunnelLog(), envoy.Flagged())},
			}),
		}}},
	}
}

// filterStateServerSAN holds the subject alternative names of which the server must present one, per connection.
const filterStateServerSAN = "envoy.network.upstream_subject_alt_names"

// TunnelCluster is where the tunnel listener connects to: port 15008 of any address, as the waypoint's own identity.
func TunnelCluster(identity string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 names.ClusterTunnel,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       envoy.Duration(connectTimeout),
		// An address that was not dialled for this long is forgotten.
		CleanupInterval:               envoy.Duration(time.Minute),
		CircuitBreakers:               circuitBreakers(),
		UpstreamConnectionOptions:     envoy.NoticeDeadServers(),
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		TransportSocket:               envoy.MTLSClient(identity, names.TrustBundleSecret, trustDomainOf(identity)),
	}
}

// trustDomainOf matches the peers of an identity; none if it is not a SPIFFE ID.
func trustDomainOf(identity string) []*tlsv3.SubjectAltNameMatcher {
	td, _, _, ok := names.ParseSPIFFEID(identity)
	if !ok {
		return nil
	}
	return []*tlsv3.SubjectAltNameMatcher{envoy.TrustDomain(td)}
}

func internalListener() *listenerv3.Listener_InternalListener {
	return &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}}
}
