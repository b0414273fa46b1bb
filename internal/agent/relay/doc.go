// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package relay makes the agent the only xDS server of the Envoy beside it: what the agent makes itself (secrets, on a
// node listeners) and what it relays from the operator over one delta ADS stream come from one local cache.
//
// Guarantees:
//   - A subscription of Envoy becomes a subscription at the operator; a resource goes to Envoy as the bytes that came.
//   - A response of the operator is ACKed when Envoy has ACKed every resource in it, and NACKed with Envoy's own text
//     if
//     Envoy rejected one. Where no Envoy subscribes, it is ACKed at once, and the operator learns later if that was
//     wrong.
//   - Of a resource that Envoy rejected, the last good version stays in the cache, for an Envoy that restarts.
//   - On a node, Envoy holds a bounded number of clusters on demand, and of endpoints: of those the operator's resource
//     may be
//     relayed in part, and has another version then.
//   - Without the operator, everything known is served, across restarts of Envoy and, by a snapshot, of the agent.
package relay
