// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node makes the configuration of node proxies. It has two callers. The agent asks for the listeners of the
// captured pods of its own node (Listeners) and for what every node proxy has from the start (StaticListeners,
// StaticClusters). The operator answers what a proxy asks for as it needs it: the cluster of a dialled address
// (Cluster), its endpoints (LoadAssignment) and what a captured pod answers over HBONE (InboundRoutes).
//
// One connection passes like this. The sending pod's listener "outbound" tunnels it, with the dialled address as CONNECT
// authority, to the cluster named by that address. Endpoints that take HBONE get it over mTLS with the pod's own
// certificate, from the pod's own network namespace and address. All others are endpoints whose address is the internal
// listener "plaintext", which ends the tunnel and connects in plain from the same namespace. The receiving pod's
// listener "hbone" resolves the authority by a route configuration and connects to the application, with the caller's
// address as source.
//
// All functions are pure.
package node

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	selectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/local_address_selectors/filter_state_override/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// ClusterDirect connects in plain to the address in the filter state, from the network namespace in the filter state,
// marked so that capture leaves the connection alone. Every pod of the node shares it.
const ClusterDirect = "direct"

// connectTimeout bounds a TCP (and TLS) connection attempt to one endpoint.
const connectTimeout = 5 * time.Second

// StaticClusters are the clusters that a node proxy has from the start, with the mark of its node. It makes no more connections in plain than most,
// so that it never runs out of descriptors: one HBONE connection carries many.
func StaticClusters(most uint64, mark proxymark.Mark) []*clusterv3.Cluster {
	return []*clusterv3.Cluster{{
		Name:                 ClusterDirect,
		ConnectTimeout:       envoy.Duration(connectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		UpstreamBindConfig:   bindInPodNetns(socketOptions(mark)),
		CircuitBreakers:      upTo(uint32(min(most, unlimited))),
	}}
}

// StaticListeners are the listeners that every node proxy has from the start: the internal listener "plaintext".
func StaticListeners() []*listenerv3.Listener {
	hcm := envoy.ConnectManager("plaintext", nil)
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: names.ListenerPlaintext,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    names.ListenerPlaintext,
			Domains: []string{"*"},
			Routes:  []*routev3.Route{envoy.ConnectRoute(ClusterDirect)},
		}},
	}}
	return []*listenerv3.Listener{{
		Name:              names.ListenerPlaintext,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			envoy.SetFilterState(envoy.FilterState(envoy.FilterStateOriginalDst, "",
				"%DYNAMIC_METADATA("+names.MetadataTunnel+":"+names.MetadataTarget+")%", envoy.SharedOnce)),
			envoy.NetworkFilter("envoy.filters.network.http_connection_manager", hcm),
		}}},
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
