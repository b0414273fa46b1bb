// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// SetHeader changes a header; the value is a format.
func SetHeader(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *mutationrulesv3.HeaderMutation {
	return &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Append{
		Append: &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
		},
	}}
}

// HeadersKiB is a limit for all headers of a request or an answer together. It and the two below are within what Envoy
// takes.
func HeadersKiB(kib uint32) *wrapperspb.UInt32Value { return UInt32(min(max(kib, 64), 8192)) }

// HeaderFieldKiB is for one header, as HTTP/2 packs it.
func HeaderFieldKiB(kib uint32) *wrapperspb.UInt32Value { return UInt32(min(max(kib, 64), 256)) }

// HeaderCount is how many headers there may be.
func HeaderCount(n uint32) *wrapperspb.UInt32Value { return UInt32(max(n, 1)) }
