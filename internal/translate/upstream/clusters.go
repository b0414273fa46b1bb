// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// cluster is what all clusters have that more than one endpoint may be in.
func cluster(name string, timeout time.Duration) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                      name,
		ConnectTimeout:            envoy.Duration(timeout),
		LbPolicy:                  clusterv3.Cluster_LEAST_REQUEST,
		UpstreamConnectionOptions: envoy.NoticeDeadServers(),
	}
}

// byEDS has a cluster ask for its endpoints.
func byEDS(c *clusterv3.Cluster, endpoints string) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: envoy.ADS(0), ServiceName: endpoints}
}

// reachedInPlainOr lets an endpoint be reached as it says (lbEndpoint): in plain, or else by mTLS.
func reachedInPlainOr(c *clusterv3.Cluster, mtls *corev3.TransportSocket) {
	c.TransportSocket = mtls
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{envoy.InPlain()}
}

// atMost so many connections, and so many of all else. Envoy's own default of 1,024 refuses ordinary load.
func atMost(connections, rest uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     envoy.UInt32(connections),
		MaxPendingRequests: envoy.UInt32(rest),
		MaxRequests:        envoy.UInt32(rest),
		MaxRetries:         envoy.UInt32(rest),
	}}}
}

// statName is a name for a cluster's statistics: Envoy takes a cluster's own to end at the first dot, and the rest
// would become part of each metric's name.
func statName(name string) string { return strings.ReplaceAll(name, ".", "_") }
