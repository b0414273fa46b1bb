// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// become has one of the listener's composite filters be a chain of filters, for a table or a route. When a filter of a
// chain holds a request back for a while, Envoy goes on behind the whole chain and leaves out the rest of it: one that
// waits must be the last.
func become(chain ...*corev3.TypedExtensionConfig) *compositev3.CompositePerRoute {
	return &compositev3.CompositePerRoute{Matcher: &xdsmatcherv3.Matcher{OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{
		OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: envoy.Matching("policy", &compositev3.ExecuteFilterAction{
			FilterChain: &compositev3.FilterChainConfiguration{TypedConfig: chain},
		})},
	}}}
}

// nothing is a filter that does nothing.
func nothing() *corev3.TypedExtensionConfig {
	return envoy.Extension("envoy.filters.http.header_mutation", &headermutationv3.HeaderMutation{})
}
