// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package connections ends the connections to a node's pods, or through a waypoint's TCP ports, that were let in by an
// earlier guard, and that the present one refuses. The proxy doesn't: it asks about a connection once, when it comes.
//
// Invariants:
//   - A connection is ended only if the present guard's own expressions say that they refuse it. Nobody whose caller,
//     port or guard isn't known is ended.
//   - Who a caller is, is what it proved to the proxy, which tells of each connection when it comes, and again now and
//     then, for an agent that has started anew.
//   - What is kept is bounded; connections that find no room are asked about when they are told of again.
package connections
