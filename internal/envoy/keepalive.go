// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// keepalive finds a peer that went without a word, such as one whose node lost its power, within a minute. Applications
// can't: what they ask of TCP is answered by the proxy beside them. Nor does anything else, and such connections would
// stay for ever and count against what a port may have (mostPeers).
func keepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{KeepaliveTime: UInt32(30), KeepaliveInterval: UInt32(10), KeepaliveProbes: UInt32(3)}
}

// NoticeDeadClients ends a listener's connections whose client is no more.
func NoticeDeadClients(l *listenerv3.Listener) { l.TcpKeepalive = keepalive() }

// NoticeDeadServersWithin is NoticeDeadServers by other numbers; those that are zero stay.
func NoticeDeadServersWithin(time, interval time.Duration, probes uint32) *clusterv3.UpstreamConnectionOptions {
	out := NoticeDeadServers()
	for _, set := range []struct {
		field *wrapperspb.UInt32Value
		to    uint32
	}{
		{out.GetTcpKeepalive().GetKeepaliveTime(), uint32(time.Seconds())},
		{out.GetTcpKeepalive().GetKeepaliveInterval(), uint32(interval.Seconds())},
		{out.GetTcpKeepalive().GetKeepaliveProbes(), probes},
	} {
		if set.to > 0 {
			set.field.Value = set.to
		}
	}
	return out
}

// NoticeDeadServers ends a cluster's connections whose server is no more.
func NoticeDeadServers() *clusterv3.UpstreamConnectionOptions {
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()}
}
