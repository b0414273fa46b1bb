// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// This file says how HTTP is spoken with callers; package upstream says how it is with applications. A waypoint is to
// be seen as little as can be: what works between the two without it works through it.

// upgradeWebSocket is the one protocol that a connection may be upgraded to.
const upgradeWebSocket = "websocket"

// defaultHost is the host of a request that has none, as HTTP/1.0 allows.
const defaultHost = "localhost"

// speak sets how HTTP is spoken with callers.
func speak(m *hcmv3.HttpConnectionManager, limits model.HeaderLimits) {
	m.CodecType = hcmv3.HttpConnectionManager_AUTO
	m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
		IdleTimeout: envoy.Duration(idleDownstream), MaxHeadersCount: envoy.HeaderCount(limits.Count),
	}
	m.MaxRequestHeadersKb = envoy.HeadersKiB(limits.KiB)
	m.HttpProtocolOptions = &corev3.Http1ProtocolOptions{
		AcceptHttp_10:         true,
		DefaultHostForHttp_10: defaultHost,
		EnableTrailers:        true,
		IgnoreHttp_11Upgrade:  []*matcherv3.StringMatcher{anyBut(upgradeWebSocket)},
	}
	m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{
		AllowConnect:         true, // for websockets, RFC 8441
		MaxConcurrentStreams: mostStreams(limits),
		MaxHeaderFieldSizeKb: envoy.HeaderFieldKiB(limits.KiB),
		// Clients that cancel calls by the hundred are no attack yet; Envoy's default ends their connection
		// after 1000 and then 33 a second.
		StreamResetBurst: wrapperspb.UInt64(10_000),
		StreamResetRate:  wrapperspb.UInt64(1_000),
	}
	m.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: upgradeWebSocket}}
	// Whether a body is wanted is the application's to say, or the route's.
	m.Proxy_100Continue = true
}

// heldKiB is what the headers of all requests of one connection may take. HTTP/2 packs what repeats to next to nothing,
// and nothing can stop a worker that is just reading what a connection brought.
const heldKiB = 128 << 10

// mostStreams is how many requests a connection may carry at a time: 100 in any case, as all clients expect (RFC 9113,
// 6.5.2), and no more than Envoy's own 1024.
func mostStreams(l model.HeaderLimits) *wrapperspb.UInt32Value {
	return envoy.UInt32(min(max(heldKiB/envoy.HeadersKiB(l.KiB).GetValue(), 100), 1024))
}

// anyBut matches every offer of an upgrade but one. Envoy refuses a request that offers what it does not know, though
// nobody need take an offer (RFC 9110, 7.8); those that match it takes out of the request. RE2 has no negation, so the
// expression spells out how a text can differ from the word: it ends within it, turns from it, or goes on behind it.
func anyBut(word string) *matcherv3.StringMatcher {
	differs := []string{word + ".+"}
	for n := range word {
		differs = append(differs, word[:n], word[:n]+"[^"+word[n:n+1]+"].*")
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: "(?is)" + strings.Join(differs, "|")},
	}}
}
