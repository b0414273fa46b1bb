// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// connectTimeout bounds TCP and TLS to one endpoint: two lost packets are made good, and an endpoint that vanished
	// without a trace does not hold a request for long before another is tried.
	connectTimeout = 4 * time.Second
	// connectAttempts over different endpoints, before a caller of a TCP port sees a failure.
	connectAttempts = 3
	// ceiling of connections, requests and waiting requests per cluster and worker-shared: far above what a waypoint
	// serves, and low enough that a backend that hangs can't exhaust the memory. Envoy's own default of 1024 refuses
	// ordinary load.
	ceiling = 65536
)

// Cluster is a service port as a destination: its endpoints by EDS, each inside or outside the mesh. Requests leave in
// the protocol in which they came (a port declared HTTP may well be spoken to in h2c), unless the port is declared
// HTTP/2. The limits are of the waypoint that sends.
func Cluster(u model.Upstream, headers model.HeaderLimits) *clusterv3.Cluster {
	p := u.ServicePort
	out := &clusterv3.Cluster{
		Name:                 clusterName(p),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			ServiceName: names.WaypointEndpoints(p.Namespace, p.Service, p.Port),
			EdsConfig:   envoy.ADS(0),
		},
		LbPolicy:                                clusterv3.Cluster_LEAST_REQUEST,
		ConnectTimeout:                          envoy.Duration(connectTimeout),
		CircuitBreakers:                         circuitBreakers(),
		PerConnectionBufferHighWatermarkTimeout: envoy.Duration(stalledTimeout),
		// To a plain address it is a raw buffer; to an internal one it also carries the metadata.
		TransportSocket:               envoy.Internal(names.MetadataTunnel),
		TypedExtensionProtocolOptions: protocolOptions(u.Protocol, headers),
	}
	if u.Protocol == model.ProtocolTCP || u.Protocol == model.ProtocolTLS {
		out.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
	}
	if u.ClientIP {
		// The address that the mTLS listener saw: what Envoy takes for the client's is up to x-forwarded-for.
		out.LoadBalancingPolicy = envoy.Maglev(&routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
			FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: names.FilterStateSourceIP},
		}})
	}
	return out
}

func circuitBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     envoy.UInt32(ceiling),
		MaxPendingRequests: envoy.UInt32(ceiling),
		MaxRequests:        envoy.UInt32(ceiling),
		MaxRetries:         envoy.UInt32(ceiling),
	}}}
}
