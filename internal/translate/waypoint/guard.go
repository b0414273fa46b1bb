// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Who may connect to a port that is passed on as it is, is decided when the caller has proved who it is, and before
// anything is connected to: a server that speaks first must say nothing to one that is refused. By then tcp_proxy has
// picked its cluster. But that connects from the network namespace in the filter state (upstream.Inbound), which is the
// verdict: empty, and so the proxy's own, for who is let in; and what there is none of for everybody else.

// guarded are the filters that decide, by what the operator says in names.AuthorizationTCP.
func guarded() []*listenerv3.Filter {
	return []*listenerv3.Filter{
		envoy.SetFilterState(envoy.FilterState(names.FilterStateVerdict, envoy.FactoryString, envoy.Unproved,
			envoy.SharedNot)),
		envoy.NetworkFilterByECDS(names.AuthorizationTCP, &netstatev3.Config{}),
		envoy.SetFilterStateOfPeer(nil, []*statev3.FilterStateValue{envoy.FilterState(envoy.FilterStateNetns,
			envoy.FactoryHashableString, envoy.PlainState(names.FilterStateVerdict), envoy.SharedOnce)}),
	}
}
