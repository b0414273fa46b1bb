// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/netip"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Filter chains of the mTLS listener.
const (
	chainHTTP    = "http"
	chainTCP     = "tcp"
	chainRefused = "refused"
)

// MTLSListener takes what members of the mesh send. The waypoint presents its own SPIFFE ID (the SDS name of its
// certificate); peers must have an identity of the same trust domain. An identity that is no SPIFFE ID gives a listener
// that lets nobody in. It listens on the addresses given (0.0.0.0, ::, or both, as the cluster's families are), or on
// 0.0.0.0 without any.
//
// The server name that a peer asks for is a Service's port (names.ServerName), and picks the filter chain: HTTP, which
// is then nothing else, whatever callers send or don't (or they could choose to go around the routes), or TCP. Any
// other name leads nowhere, and the connection ends. No chain changes with a port: to Envoy, a chain that changed is
// another one, and it would end the connections of all ports.
func MTLSListener(w model.Waypoint) *listenerv3.Listener {
	addresses := w.Listen
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
		FilterChains: []*listenerv3.FilterChain{
			chain(chainHTTP, w.Identity, envoy.NetworkFilter(filterHTTPManager, httpManager(w.Headers))),
			chain(chainTCP, w.Identity, append(guarded(), envoy.SetFilterState(envoy.FilterState(envoy.FilterStateCluster, "",
				names.PrefixInboundCluster+"%REQUESTED_SERVER_NAME%", envoy.SharedNot)), envoy.Ended(tcpProxy()))...),
			chain(chainRefused, w.Identity, envoy.Ended(refuse())),
		},
		FilterChainMatcher: chainOf(w),
		AccessLog:          []*accesslogv3.AccessLog{envoy.StdoutErrors(refusedLog(), envoy.NotProved())},
	}
	l.SocketOptions = envoy.BoundUnsent()
	envoy.AwaitHello(l)
	return l
}

// chain ends mTLS and keeps who the peer is as filter state, for what comes behind.
func chain(name, identity string, rest ...*listenerv3.Filter) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:                          name,
		TransportSocket:               envoy.MTLSServer(identity, names.TrustBundleSecret, envoy.TrustDomainOf(identity)),
		TransportSocketConnectTimeout: envoy.Duration(envoy.HandshakeTimeout),
		Filters: append([]*listenerv3.Filter{
			envoy.PeerLimit(),
			envoy.SetFilterStateOfPeer([]*statev3.FilterStateValue{
				envoy.FilterState(names.FilterStateSourceIP, envoy.FactoryHashableString,
					"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", envoy.SharedNot),
			}, []*statev3.FilterStateValue{
				envoy.FilterState(names.FilterStateSource, envoy.FactoryHashableString, "%DOWNSTREAM_PEER_URI_SAN%",
					envoy.SharedNot),
			}),
		}, rest...),
	}
}

// chainOf a server name: as the ports are, and none for any other.
func chainOf(w model.Waypoint) *xdsmatcherv3.Matcher {
	m := &xdsmatcherv3.Matcher{OnNoMatch: toChain(chainRefused)}
	if len(w.Ports) == 0 {
		return m
	}
	ports := make(map[string]*xdsmatcherv3.Matcher_OnMatch, len(w.Ports))
	for _, p := range w.Ports {
		chain := chainTCP
		if p.Protocol.HTTP() {
			chain = chainHTTP
		}
		ports[names.ServerName(p.Namespace, p.Service, p.Port)] = toChain(chain)
	}
	m.MatcherType = &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
		Input: envoy.Matching("server name", &networkinputsv3.ServerNameInput{}),
		TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
			ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: ports},
		},
	}}
	return m
}

func toChain(name string) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: envoy.Matching(name, wrapperspb.String(name)),
	}}
}
