// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// mostPeers is how many connections to an HBONE port may be open, those that have proved nothing yet included: two for
	// each of 8,000 clients, and a small part of what the proxy takes in all (bootstrap.ConnectionsWithin), so that a
	// flood that one pod draws leaves the node's other pods alone. Envoy counts nothing by source address.
	mostPeers = 16_384
	// mostTunnels of one HBONE connection; Envoy opens another one beyond it.
	mostTunnels = 1024
)

// PeerLimit closes the connections to an HBONE port beyond what it may have, before they prove anything.
func PeerLimit() *listenerv3.Filter {
	return NetworkFilter("envoy.filters.network.connection_limit", &connectionlimitv3.ConnectionLimit{
		StatPrefix: "hbone", MaxConnections: wrapperspb.UInt64(mostPeers),
	})
}
