// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/local_ratelimit/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// helloTimeout bounds how long a peer may take to say what it asks for: its first packet behind the one that opens the
	// connection, lost twice.
	helloTimeout = 4 * time.Second
	// peersPerSecond is how many connections to an mTLS port may begin in a second. Those that have said nothing yet are
	// not counted by PeerLimit; there are at most helloTimeout times as many.
	peersPerSecond = 4_096
	// helloBytes are held for a peer that has said nothing yet: what a hello of the mesh takes. It may be longer.
	helloBytes = 2048
	// HandshakeTimeout bounds how long an mTLS listener waits for a peer's TLS: longer than any client of the mesh
	// waits. Until then a connection costs memory and a descriptor, and nobody has proved anything.
	HandshakeTimeout = 10 * time.Second
	// MostPeers is how many connections to an mTLS port may be open, those that have proved nothing yet included: a small
	// part of what the proxy takes in all (bootstrap.ConnectionsWithin), so that a flood that one pod draws leaves the
	// node's other pods alone. Envoy counts nothing by source address; in captured pods the kernel does (package capture).
	MostPeers = 16_384
)

// HeldBytes is at how many bytes, each way, an application is stopped that writes faster than its peer reads. What is
// under way between nodes is the kernel's to hold; a proxy that held more would be at the mercy of those who open
// connections and don't read.
const HeldBytes = 64 << 10

// AwaitHello makes an mTLS listener read which server name (SNI) a peer asks for, and wait for that no longer than it
// must. More listener filters may follow.
func AwaitHello(l *listenerv3.Listener) {
	NoticeDeadClients(l)
	l.ListenerFiltersTimeout = Duration(helloTimeout)
	l.ListenerFilters = []*listenerv3.ListenerFilter{
		ListenerFilter("envoy.filters.listener.local_ratelimit", &ratelimitv3.LocalRateLimit{
			StatPrefix: "mtls",
			TokenBucket: &typev3.TokenBucket{
				MaxTokens: peersPerSecond, TokensPerFill: UInt32(peersPerSecond / 16), FillInterval: Duration(time.Second / 16),
			},
		}),
		ListenerFilter("envoy.filters.listener.tls_inspector",
			&tlsinspectorv3.TlsInspector{InitialReadBufferSize: UInt32(helloBytes)}),
	}
}

// PeerLimit closes the connections to an mTLS port beyond what it may have, before they prove anything.
func PeerLimit() *listenerv3.Filter {
	return NetworkFilter("envoy.filters.network.connection_limit", &connectionlimitv3.ConnectionLimit{
		StatPrefix: "mtls", MaxConnections: wrapperspb.UInt64(MostPeers),
	})
}
