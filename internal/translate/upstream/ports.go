// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// portTimeout bounds TCP and TLS to one endpoint: two lost packets are made good, and an endpoint that vanished
	// without a trace does not hold a request for long before another is tried.
	portTimeout = 4 * time.Second
	// ceiling of connections, requests and waiting requests per cluster and worker-shared: far above what a waypoint
	// serves, and low enough that a backend that hangs can't exhaust the memory. Envoy's own default of 1024 refuses
	// ordinary load.
	ceiling = 65536
)

// ServicePort is a service port as a destination of requests: its endpoints by EDS, each inside or outside the mesh. Requests
// leave in the protocol in which they came (a port declared HTTP may well be spoken to in h2c), unless the port is declared
// HTTP/2. The limits are of the waypoint that sends, and so is the identity as which it connects.
func ServicePort(u model.Upstream, identity string, headers model.HeaderLimits) *clusterv3.Cluster {
	out := portCluster(names.ServicePort(u.Namespace, u.Service, u.Port), u, identity)
	out.TypedExtensionProtocolOptions = protocolOptions(u.Protocol, headers)
	return out
}

// Inbound is a service port as the destination of connections that are passed on as they are; and of requests, on
// connections from when the port was HTTP.
func Inbound(u model.Upstream, identity string, headers model.HeaderLimits) *clusterv3.Cluster {
	out := portCluster(names.InboundCluster(u.Namespace, u.Service, u.Port), u, identity)
	out.TypedExtensionProtocolOptions = protocolOptions(u.Protocol, headers)
	out.AltStatName = strings.ReplaceAll(out.GetName(), ".", "_") // Envoy takes a cluster's name to end at the first dot
	out.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
	return out
}

func portCluster(name string, u model.Upstream, identity string) *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			ServiceName: names.WaypointEndpoints(u.Namespace, u.Service, u.Port),
			EdsConfig:   envoy.ADS(0),
		},
		LbPolicy:                  clusterv3.Cluster_LEAST_REQUEST,
		ConnectTimeout:            envoy.Duration(portTimeout),
		CircuitBreakers:           circuitBreakers(),
		UpstreamConnectionOptions: envoy.NoticeDeadServers(),
	}
	reachPort(out, u.Identities, identity)
	if u.ClientIP {
		// The address that the mTLS listener saw: what Envoy takes for the client's is up to x-forwarded-for.
		out.LoadBalancingPolicy = envoy.Maglev(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
			FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: names.FilterStateSourceIP},
		}})
	}
	return out
}

// mostTold is how many identities that may answer for a Service's port are told apart, endpoint by endpoint: each costs a proxy
// 15 KB, for each port.
const mostTold = 4

// reachPort lets an endpoint be reached as it says (portEndpoint): in plain, or by mTLS as the one identity that may answer
// there. Where identities are too many, whoever may answer at one endpoint may at another, too.
func reachPort(c *clusterv3.Cluster, identities []string, own string) {
	var others []string
	if len(identities) > mostTold {
		identities, others = nil, identities
	}
	c.TransportSocket = envoy.MTLSClient(own, names.TrustBundleSecret, envoy.MayAnswer(others))
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{envoy.InPlain()}
	for _, id := range identities {
		c.TransportSocketMatches = append(c.TransportSocketMatches,
			envoy.OnWay("mtls", id, envoy.MTLSClient(own, names.TrustBundleSecret, envoy.SPIFFEIDs(id))))
	}
}

func circuitBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     envoy.UInt32(ceiling),
		MaxPendingRequests: envoy.UInt32(ceiling),
		MaxRequests:        envoy.UInt32(ceiling),
		MaxRetries:         envoy.UInt32(ceiling),
	}}}
}
