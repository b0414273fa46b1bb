// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// wayWaypoint is the way of endpoints that take mTLS as the waypoint of the Service. All others take it as themselves, but for
// those that are reached in plain.
const wayWaypoint = "waypoint"

// Destination is the answer to a node proxy's on-demand subscription of a dialled address. It never removes: an address
// that leads nowhere is a cluster without endpoints, because Envoy doesn't ask again for one that was removed.
//
// Its statistics have a name of their own: Envoy takes a cluster's name to end at the first dot, so an address would become
// part of each metric's name.
func Destination(d model.Destination) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                          d.Address.String(),
		AltStatName:                   strings.ReplaceAll(d.Address.String(), ".", "_"),
		ConnectTimeout:                envoy.Duration(connectTimeout),
		LbPolicy:                      clusterv3.Cluster_LEAST_REQUEST,
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		UpstreamConnectionOptions:     envoy.NoticeDeadServers(),
		CircuitBreakers:               upTo(unlimited),
		UpstreamBindConfig:            bindInPodNetns(unmarked()),
	}
	switch d.Kind {
	case model.DestinationService, model.DestinationWaypoint:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{
			EdsConfig:   envoy.ADS(0),
			ServiceName: names.NodeEndpoints(d.Port.Namespace, d.Port.Service, d.Port.Port, d.IPv6),
		}
		c.AltStatName = c.GetEdsClusterConfig().GetServiceName()
		if d.ClientIP {
			c.LoadBalancingPolicy = envoy.SmallMaglev(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
			}})
		}
		reach(c, d.Identities, serverName(d))
		if len(d.Callers) > 0 {
			byCaller(c, d)
		}
	case model.DestinationWorkload:
		static(c, model.Endpoint{Address: d.Address, MTLS: true})
		reach(c, d.Identities, "")
	case model.DestinationPassthrough:
		static(c, model.Endpoint{Address: d.Address})
		c.TransportSocket = envoy.Raw()
	case model.DestinationRefused:
		return nowhere(d)
	}
	return c
}

// nowhere is a cluster that refuses, as small as Envoy can make one: a pod may dial such addresses by the thousand.
func nowhere(d model.Destination) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 d.Address.String(),
		AltStatName:          "nowhere",
		ConnectTimeout:       envoy.Duration(connectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
	}
}

// serverName is what a waypoint is asked for: a Service's port. A pod is asked for a port of its own, which its endpoint says.
func serverName(d model.Destination) string {
	if d.Kind != model.DestinationWaypoint {
		return ""
	}
	return names.ServerName(d.Service.Namespace, d.Service.Service, d.Service.Port)
}

// reach adds both ways to reach an endpoint. mTLS is what an endpoint gets that doesn't say plaintext itself.
func reach(c *clusterv3.Cluster, identities []string, serverName string) {
	c.TransportSocket = envoy.MTLSClientOnDemand(names.TrustBundleSecret, serverName, envoy.MayAnswer(identities))
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{envoy.InPlain()}
}

func static(c *clusterv3.Cluster, endpoints ...model.Endpoint) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = NodeEndpoints(c.Name, endpoints)
}

// NodeEndpoints are the endpoints of a Service's port (or of a waypoint) as node proxies see them: the nearest first, those
// that drain last; zones become localities and change no balance by themselves. Envoy tells endpoints of a cluster by their
// address, which all ports of a pod in the mesh share: of two ports of one pod behind one port of a Service (slices made by hand
// can have that), the first serves.
func NodeEndpoints(name string, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	type group struct {
		rank int
		zone string
	}
	groups := map[group][]*endpointv3.LbEndpoint{}
	// Envoy wants priorities without gaps.
	priorities := map[int]uint32{}
	next := uint32(0)
	seen := map[netip.AddrPort]bool{}
	_, _, _, _, chooses := names.ParseCallerEndpoints(name)
	for _, e := range slices.SortedFunc(slices.Values(endpoints), func(a, b model.Endpoint) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Address.Compare(b.Address))
	}) {
		at := e.Address
		if e.MTLS {
			at = netip.AddrPortFrom(at.Addr(), names.PortMTLS)
		}
		if seen[at] {
			continue
		}
		seen[at] = true
		g := group{rank: rank(e), zone: e.Zone}
		if _, known := priorities[g.rank]; !known {
			priorities[g.rank] = next
			next++
		}
		lb := endpoint(e, at)
		if chooses {
			if lb.Metadata == nil {
				lb.Metadata = envoy.Metadata(nil)
			}
			lb.Metadata.FilterMetadata[envoy.MetadataBalance] = forCallers(e)
		}
		groups[g] = append(groups[g], lb)
	}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for g, list := range groups {
		out.Endpoints = append(out.Endpoints, &endpointv3.LocalityLbEndpoints{
			Locality:    &corev3.Locality{Zone: g.zone},
			Priority:    priorities[g.rank],
			LbEndpoints: list,
		})
	}
	slices.SortFunc(out.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	return out
}

// rank is the order in which endpoints are taken: any that serves comes before all that drain.
func rank(e model.Endpoint) int {
	if e.Draining {
		return math.MaxUint8 + 1
	}
	return int(e.Distance)
}

// endpoint at an address. One that takes mTLS has the name of its port, which is what its pod's proxy is asked for.
func endpoint(e model.Endpoint, at netip.AddrPort) *endpointv3.LbEndpoint {
	switch {
	case e.Absent:
		lb := envoy.LbEndpoint(envoy.InternalAddress("nowhere", "absent"), nil)
		lb.HealthStatus = corev3.HealthStatus_UNHEALTHY
		return lb
	case len(e.Callers) > 0:
		return envoy.LbEndpoint(envoy.Address(at), envoy.Metadata(map[string]map[string]string{envoy.MetadataSocketMatch: envoy.ReachedBy(wayWaypoint)}))
	case e.MTLS:
		lb := envoy.LbEndpoint(envoy.Address(at), nil)
		lb.GetEndpoint().Hostname = strconv.Itoa(int(e.Address.Port()))
		return lb
	}
	return envoy.LbEndpoint(envoy.Address(at), envoy.Metadata(map[string]map[string]string{
		envoy.MetadataSocketMatch: envoy.ReachedBy(envoy.WayPlaintext),
	}))
}

// unlimited takes Envoy's default of 1,024 connections away: the mesh must not refuse what the application would have
// taken. Limits are a matter of policy.
const unlimited = 1 << 30

// upTo so many connections, and any number of all else.
func upTo(connections uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     envoy.UInt32(connections),
		MaxPendingRequests: envoy.UInt32(unlimited),
		MaxRequests:        envoy.UInt32(unlimited),
		MaxRetries:         envoy.UInt32(unlimited),
	}}}
}
