// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// wayWaypoint is the way of endpoints that take mTLS as the waypoint of the Service. All others take it as themselves,
// but for those that are reached in plain.
const wayWaypoint = "waypoint"

// Destination is the answer to a node proxy's on-demand subscription of a dialled address. It never removes: an address
// that leads nowhere is a cluster without endpoints, because Envoy doesn't ask again for one that was removed.
//
// Its statistics have a name of their own: Envoy takes a cluster's name to end at the first dot, so an address would
// become part of each metric's name.
func Destination(d model.Destination) *clusterv3.Cluster {
	c := cluster(d.Address.String(), connectTimeout)
	c.AltStatName = statName(c.GetName())
	c.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
	c.CircuitBreakers = atMost(unlimited, unlimited)
	c.UpstreamBindConfig = bindInNetns(unmarked())
	switch d.Kind {
	case model.DestinationService, model.DestinationWaypoint:
		byEDS(c, names.NodeEndpoints(d.Port.Namespace, d.Port.Service, d.Port.Port, d.IPv6))
		c.AltStatName = c.GetEdsClusterConfig().GetServiceName()
		if d.ClientIP {
			c.LoadBalancingPolicy = envoy.SmallMaglev(&routev3.RouteAction_HashPolicy{
				PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
					ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
				},
			})
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
	c.StatsMatcher = envoy.OnlyStatsOfConnections(c.GetAltStatName())
	return c
}

// statNowhere tells clusters that refuse from others. Statistics of addresses have names of other forms.
const statNowhere = "nowhere"

// nowhere is a cluster that refuses, as small as Envoy can make one: a pod may dial such addresses by the thousand.
func nowhere(d model.Destination) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 d.Address.String(),
		AltStatName:          statNowhere,
		StatsMatcher:         envoy.NoStats(), // there would be no connection to count
		ConnectTimeout:       envoy.Duration(connectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
	}
}

// LeadsNowhere tells whether a packed cluster is that of an address that leads nowhere.
func LeadsNowhere(packed *anypb.Any) bool {
	c := &clusterv3.Cluster{}
	return packed.UnmarshalTo(c) == nil && c.GetAltStatName() == statNowhere
}

// serverName is what a waypoint is asked for: a Service's port. A pod is asked for a port of its own, which its
// endpoint says.
func serverName(d model.Destination) string {
	if d.Kind != model.DestinationWaypoint {
		return ""
	}
	return names.ServerName(d.Service.Namespace, d.Service.Service, d.Service.Port)
}

// reach has mTLS as the pod that dials, for an endpoint that doesn't say plaintext itself.
func reach(c *clusterv3.Cluster, identities []string, serverName string) {
	reachedInPlainOr(c, envoy.MTLSClientOnDemand(names.TrustBundleSecret, serverName, envoy.MayAnswer(identities)))
}

func static(c *clusterv3.Cluster, endpoints ...model.Endpoint) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = NodeEndpoints(c.Name, endpoints)
}

// NodeEndpoints are the endpoints of a Service's port (or of a waypoint) as node proxies see them: the nearest first,
// those that drain last.
func NodeEndpoints(name string, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	list := make([]candidate, 0, len(endpoints))
	for _, e := range endpoints {
		list = append(list, candidate{Endpoint: e, at: reachedAt(e), rank: rank(e)})
	}
	_, _, _, _, chooses := names.ParseCallerEndpoints(name)
	return assign(name, list, func(c candidate) *endpointv3.LbEndpoint {
		lb := nodeEndpoint(c)
		if chooses {
			if lb.Metadata == nil {
				lb.Metadata = envoy.Metadata(nil)
			}
			lb.Metadata.FilterMetadata[envoy.MetadataBalance] = forCallers(c.Endpoint)
		}
		return lb
	})
}

// rank is the order in which endpoints are taken: any that serves comes before all that drain.
func rank(e model.Endpoint) int {
	if e.Draining {
		return math.MaxUint8 + 1
	}
	return int(e.Distance)
}

func nodeEndpoint(c candidate) *endpointv3.LbEndpoint {
	reachedBy := func(way string) *corev3.Metadata {
		return envoy.Metadata(map[string]map[string]string{envoy.MetadataSocketMatch: envoy.ReachedBy(way)})
	}
	switch {
	case c.Absent:
		lb := envoy.LbEndpoint(envoy.InternalAddress("nowhere", "absent"), nil)
		lb.HealthStatus = corev3.HealthStatus_UNHEALTHY
		return lb
	case len(c.Callers) > 0:
		return envoy.LbEndpoint(envoy.Address(c.at), reachedBy(wayWaypoint))
	case c.MTLS:
		return lbEndpoint(c, nil)
	}
	return lbEndpoint(c, reachedBy(envoy.WayPlaintext))
}

// unlimited takes Envoy's default of 1,024 connections away: the mesh must not refuse what the application would have
// taken. Limits are a matter of policy.
const unlimited = 1 << 30
