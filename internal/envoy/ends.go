// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// What a socket holds of a stream of TLS, so that the stream's end finds room in it. The end is a record of its own
// (close_notify, RFC 8446 section 6.1). Envoy writes it once, behind all else: if the socket is full that moment, it is
// never sent, and the other side waits for it until somebody's patience ends (SslSocket::shutdownSsl ignores what
// SSL_shutdown returns). See docs/design/data-path.md.
const (
	// SendBuffer in bytes is more than is under way to most peers, so that it is the peer's window or congestion that
	// stops a stream, and not this. Then something waits unsent, and the kernel adds the record to that whether or not
	// the socket is full.
	SendBuffer = 8 << 20
	// UnsentBytes are how many may wait unsent in a socket (tcp(7), TCP_NOTSENT_LOWAT), or those who don't read would
	// have a whole SendBuffer each.
	UnsentBytes = 512 << 10
)

// RoomForEnds is the socket options of both, for who may have more than the system's limit: that takes CAP_NET_ADMIN.
// The kernel doubles what it is asked for, for its own structures (socket(7)).
func RoomForEnds() []*corev3.SocketOption {
	return append(BoundUnsent(), beforeBind("SO_SNDBUFFORCE", 32, SendBuffer))
}

// BoundUnsent is the socket option of UnsentBytes alone, for who has SendBuffer otherwise.
func BoundUnsent() []*corev3.SocketOption {
	const tcp = 6
	return []*corev3.SocketOption{beforeBindOf(tcp, "TCP_NOTSENT_LOWAT", 25, UnsentBytes)}
}
