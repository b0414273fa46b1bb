// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"
)

// inline are the headers that Envoy has in one piece, whatever their number (its "inline headers"): those that it reads
// itself, and those that one of its filters registers. Of all others it has each by itself.
var inline = []string{
	"accept", "accept-encoding", "access-control-request-headers", "access-control-request-method", "authorization",
	"cache-control", "content-encoding", "content-type", "expect", "grpc-accept-encoding", "grpc-timeout", "if-match",
	"if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "origin", "pragma", "proxy-status",
	"referer", "user-agent", "via", "x-client-trace-id", headerForwardedFor, "x-forwarded-host",
	"x-forwarded-port", headerForwardedProto, headerRequestID,
}

// inOnePiece makes of the values of a header what Envoy has of it: of an inline one, a list of those that say
// something.
func inOnePiece(name string, values []string) []string {
	if len(values) < 2 || !slices.Contains(inline, strings.ToLower(name)) {
		return values
	}
	said := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	return []string{strings.Join(said, ",")}
}
