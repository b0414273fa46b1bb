// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node makes the configuration of node proxies. It has two callers. The agent asks for the listeners of the
// captured pods of its own node (Listeners) and for what every node proxy has from the start (StaticClusters). The operator
// answers what a proxy asks for as it needs it: the cluster of a dialled address (Cluster) and its endpoints
// (LoadAssignment).
//
// One connection passes like this. The sending pod's listener "outbound" hands it to the cluster named by the dialled
// address, which connects from the pod's own network namespace and address. Endpoints that take mTLS get it with the pod's own
// certificate, one connection for one connection, and are asked for their port by the server name (SNI). All others get
// it in plain. The receiving pod's listener "mtls" connects to the application's port, with the caller's address
// as source.
//
// All functions are pure.
package node

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	selectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/local_address_selectors/filter_state_override/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// ClusterDirect connects in plain to the address in the filter state, from the network namespace in the filter state,
// marked so that capture leaves the connection alone. Every pod of the node shares it.
const ClusterDirect = "direct"

// connectTimeout bounds a TCP (and TLS) connection attempt to one endpoint.
const connectTimeout = 5 * time.Second

// StaticClusters are the clusters that a node proxy has from the start, with the mark of its node. It makes no more connections
// to applications than most, so that it never runs out of descriptors.
func StaticClusters(most uint64, mark proxymark.Mark) []*clusterv3.Cluster {
	return []*clusterv3.Cluster{{
		Name:                          ClusterDirect,
		ConnectTimeout:                envoy.Duration(connectTimeout),
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:                      clusterv3.Cluster_CLUSTER_PROVIDED,
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		UpstreamBindConfig:            bindInPodNetns(socketOptions(mark)),
		CircuitBreakers:               upTo(uint32(min(most, unlimited))),
	}}
}

// bindInPodNetns makes a cluster's connections start in the network namespace that the downstream connection's filter
// state names, marked as the proxy's own.
func bindInPodNetns(options []*corev3.SocketOption) *corev3.BindConfig {
	return &corev3.BindConfig{
		// The selector puts the namespace into this address; the kernel chooses address and port.
		SourceAddress: anySource(netip.IPv4Unspecified()),
		ExtraSourceAddresses: []*corev3.ExtraSourceAddress{{
			Address: anySource(netip.IPv6Unspecified()),
		}},
		SocketOptions:        options,
		LocalAddressSelector: envoy.Extension("envoy.upstream.local_address_selector.filter_state_override", &selectorv3.Config{}),
	}
}

func anySource(a netip.Addr) *corev3.SocketAddress {
	return &corev3.SocketAddress{Address: a.String(), PortSpecifier: &corev3.SocketAddress_PortValue{}}
}
