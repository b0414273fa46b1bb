// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// filterStateHost is the host that the cluster of a host outside looks up and connects to, with its port.
const filterStateHost = "envoy.upstream.dynamic_host"

// nowhere is no host, in any DNS (RFC 6761, 6.4).
const nowhere = "nowhere.invalid:443"

// external says of every request that it goes nowhere outside, until its way says otherwise. Without it, Envoy would
// take what the caller wrote into the Host header for the host to connect to.
func external() *hcmv3.HttpFilter {
	return envoy.HTTPFilter(names.FilterExternal, toHost(nowhere))
}

// outwards is that a way leads to a host outside, and has no sessions: to Envoy a session may be with any host that a
// cluster knows, and such a cluster knows those of others (upstream.External).
func outwards(h model.ExternalHost) map[string]*anypb.Any {
	return map[string]*anypb.Any{
		names.FilterExternal: envoy.Any(toHost(h.Address())),
		filterSession: envoy.Any(&sessionv3.StatefulSessionPerRoute{
			Override: &sessionv3.StatefulSessionPerRoute_Disabled{Disabled: true},
		}),
	}
}

func toHost(address string) *httpstatev3.Config {
	return &httpstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{
		envoy.FilterState(filterStateHost, "", envoy.Literal(text(address)), envoy.SharedNot),
	}}
}

// nameHost has a request to a host outside name that host, unless the route's author has it name another one.
func nameHost(b model.Backend, request *headerOps) {
	if b.External != nil && !b.Invalid && request.host == "" {
		request.host = text(b.External.Authority())
	}
}
