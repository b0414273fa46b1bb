// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlymutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// ControlHeaders is the prefix of the headers by which Envoy is steered, request by request.
const ControlHeaders = "x-envoy-"

// TrustNoCaller makes a connection manager take the connection's own address for the caller's, and none of its callers
// for internal. What they send under ControlHeaders is gone before anything reads it: Envoy drops what it reads itself,
// and would pass the rest on, which looks to the application as if the mesh had said it. Further changes to a request
// that arrives come after that.
func TrustNoCaller(m *hcmv3.HttpConnectionManager, more ...*mutationrulesv3.HeaderMutation) {
	m.UseRemoteAddress = Bool(true)
	m.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{
		// Without a range, the private ones would be internal, and all pods have private addresses. Nobody calls
		// from the broadcast address.
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: UInt32(32)}},
	}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{
		Extension("envoy.http.early_header_mutation.header_mutation", &earlymutationv3.HeaderMutation{
			Mutations: append(removeControl(), more...),
		}),
	}
}

// removeControl headers, also as applications read them that take an underscore for a hyphen.
func removeControl() (out []*mutationrulesv3.HeaderMutation) {
	for _, prefix := range []string{ControlHeaders, "x-envoy_", "x_envoy-", "x_envoy_"} {
		out = append(out, RemoveHeaders(&matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
		}))
	}
	return out
}

// RemoveHeaders whose names match, in small letters.
func RemoveHeaders(named *matcherv3.StringMatcher) *mutationrulesv3.HeaderMutation {
	return &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationrulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: named},
	}}
}
