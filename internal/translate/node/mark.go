// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// Marked is a packed cluster of the operator's with the mark of this node's proxy. The operator makes clusters for all
// nodes alike and knows no node's mark.
func Marked(packed *anypb.Any, mark proxymark.Mark) (*anypb.Any, error) {
	c := &clusterv3.Cluster{}
	if err := packed.UnmarshalTo(c); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if c.GetUpstreamBindConfig() == nil {
		return packed, nil
	}
	c.UpstreamBindConfig.SocketOptions = socketOptions(mark)
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, c, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.GetName(), err)
	}
	return out, nil
}

// socketOptions of what the proxy connects in a pod's network namespace. The port that the kernel picks for a
// connection must not be taken from the application.
func socketOptions(mark proxymark.Mark) []*corev3.SocketOption {
	return append(append(mark.SocketOptions(), envoy.ReuseAddress()), envoy.RoomForEnds()...)
}
