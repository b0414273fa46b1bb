// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	addressselectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/local_address_selectors/filter_state_override/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// ClusterDirect connects in plain to the address in the filter state, from the network namespace in the filter state,
// marked so that capture leaves the connection alone. Every pod of the node shares it.
const ClusterDirect = "direct"

// connectTimeout bounds a TCP (and TLS) connection attempt of a node proxy to one endpoint.
const connectTimeout = 5 * time.Second

// Direct is ClusterDirect, with the socket options of what a node's proxy connects. It has so many connections at most.
func Direct(most uint64, options []*corev3.SocketOption) *clusterv3.Cluster {
	return direct(ClusterDirect, most, bindInNetns(options))
}

// DirectAs is like Direct, with these addresses as source, one of each family at most, wherever they are. It has as
// many connections at most as a pod takes in mTLS.
func DirectAs(name, statistics string, sources []netip.Addr, options []*corev3.SocketOption) *clusterv3.Cluster {
	bind := bindInNetns(nil)
	bind.SourceAddress, bind.ExtraSourceAddresses = nil, nil
	for _, a := range sources {
		options := append([]*corev3.SocketOption{envoy.Transparent(a)}, options...)
		if bind.SourceAddress == nil {
			bind.SourceAddress, bind.SocketOptions = anySource(a), options
			continue
		}
		bind.ExtraSourceAddresses = append(bind.ExtraSourceAddresses, &corev3.ExtraSourceAddress{
			Address: anySource(a), SocketOptions: &corev3.SocketOptionsOverride{SocketOptions: options},
		})
	}
	c := direct(name, envoy.MostPeers, bind)
	c.AltStatName = statistics
	return c
}

func direct(name string, most uint64, bind *corev3.BindConfig) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          name,
		ConnectTimeout:                envoy.Duration(connectTimeout),
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:                      clusterv3.Cluster_CLUSTER_PROVIDED,
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
		UpstreamBindConfig:            bind,
		CircuitBreakers:               atMost(uint32(min(most, unlimited)), unlimited),
	}
}

// unmarked is what a node's agent replaces (node.Marked). Those of versions that don't are content with it.
func unmarked() []*corev3.SocketOption {
	return []*corev3.SocketOption{envoy.Mark(names.MarkProxy), envoy.ReuseAddress()}
}

// bindInNetns makes a cluster's connections start in the network namespace that the downstream connection's filter
// state names, or in the proxy's own where it names none.
func bindInNetns(options []*corev3.SocketOption) *corev3.BindConfig {
	return &corev3.BindConfig{
		// The selector puts the namespace into this address; the kernel chooses address and port.
		SourceAddress: anySource(netip.IPv4Unspecified()),
		ExtraSourceAddresses: []*corev3.ExtraSourceAddress{{
			Address: anySource(netip.IPv6Unspecified()),
		}},
		SocketOptions: options,
		LocalAddressSelector: envoy.Extension("envoy.upstream.local_address_selector.filter_state_override",
			&addressselectorv3.Config{}),
	}
}

func anySource(a netip.Addr) *corev3.SocketAddress {
	return &corev3.SocketAddress{Address: a.String(), PortSpecifier: &corev3.SocketAddress_PortValue{}}
}
