// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// wayTunnel is the way of endpoints that are reached through the tunnel.
const wayTunnel = "tunnel"

// TLSPort is ServicePort where the application is spoken TLS with: straight where it is outside the mesh, and within
// the mesh's mTLS to its pod (Tunnel) where it isn't. No endpoint of it is ever reached without that TLS.
func TLSPort(u model.Upstream, headers model.HeaderLimits) *clusterv3.Cluster {
	name := names.TLSPort(u.Namespace, u.Service, u.Port)
	if u.TLS == nil || u.TLS.Refused {
		return &clusterv3.Cluster{
			Name: name, ConnectTimeout: envoy.Duration(portTimeout),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		}
	}
	out := portCluster(name, u)
	byEDS(out, names.TLSEndpoints(u.Namespace, u.Service, u.Port))
	out.TransportSocket = envoy.TLSClient(envoy.TLSServer{
		Name: u.TLS.Hostname, Hosts: u.TLS.Hosts, URIs: u.TLS.URIs, Roots: u.TLS.CAs, System: u.TLS.System,
	})
	out.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
		envoy.OnWay(wayTunnel, wayTunnel, envoy.Inside(out.TransportSocket, names.MetadataTunnel)),
	}
	out.TypedExtensionProtocolOptions = protocolOptions(u, headers)
	return out
}

// TLSEndpoints are WaypointEndpoints as TLSPort reaches them.
func TLSEndpoints(p model.ServicePort, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	return assign(names.TLSEndpoints(p.Namespace, p.Service, p.Port), portCandidates(endpoints, applicationAt),
		tlsEndpoint)
}

// applicationAt tells two ports of one pod apart, which share what reachedAt says.
func applicationAt(e model.Endpoint) netip.AddrPort { return e.Address }

// tlsEndpoint in the mesh is the tunnel, which is told where the pod is, what to ask it for, and who must answer.
func tlsEndpoint(c candidate) *endpointv3.LbEndpoint {
	if !c.MTLS {
		return portEndpoint(c)
	}
	return envoy.LbEndpoint(envoy.InternalAddress(names.ListenerTunnel, c.Address.String()),
		envoy.Metadata(map[string]map[string]string{
			envoy.MetadataSocketMatch: envoy.ReachedBy(wayTunnel),
			names.MetadataEndpoint:    {names.MetadataTarget: c.Address.String(), names.MetadataIdentity: c.Identity},
			names.MetadataTunnel: {
				names.MetadataTunnelAddress: reachedAt(c.Endpoint).String(),
				names.MetadataTunnelServer:  strconv.Itoa(int(c.Address.Port())),
				names.MetadataIdentity:      c.Identity,
			},
		}))
}

// Tunnel is the cluster behind the internal listener of that name: mTLS to the pod that the listener was told of, as
// the waypoint, whatever Service the pod is an endpoint of. Who must answer is told with it; without that, nobody may.
func Tunnel(identity string) *clusterv3.Cluster {
	out := cluster(names.ClusterTunnel, portTimeout)
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
	out.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	out.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
	out.CircuitBreakers = atMost(unlimited, unlimited) // the ports' own hold
	out.TransportSocket = envoy.MTLSClient(identity, names.TrustBundleSecret, envoy.TrustDomainOf(identity))
	return out
}
