// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package peers joins the acknowledgement books of the operator's replicas, so that whoever leads knows what every
// proxy runs, whichever replica the proxy is connected to.
//
// Every replica serves its own book (package xds) to the others and follows theirs, leader or not: a new leader knows
// everything at once. A book travels as JSON lines on one long HTTP response over mutual TLS, in which both ends must
// have the operator's own SPIFFE identity:
//
//	{"replica":"…"}                       who speaks
//	{"entries":[…]} … {"complete":true}   the snapshot
//	{"entries":[…]}                       what changed, coalesced by resource; resources alike in one entry, if asked for
//	{"notes":["…"]}                       what replicas tell each other besides; the package does not read it
//	{"facts":["…"]}                       likewise, of which the latest counts
//	{}                                    still there
//
// Only what statuses depend on travels: of waypoints, who runs which version of the routes and of the listener mtls,
// and who rejects another listener or a cluster; of node proxies, all of them together, whether those that have the
// cluster of a Service's address follow its current version; and of both, who runs which version of the filters that
// decide who may come in.
//
// Versions are hashes of content, so a verdict made on one replica can be judged on another: a proxy has acknowledged a
// resource if it runs the version that is current *here*. A resource that only proxies of other replicas have asked for
// has to be derived here as well, to have a version: Interests adds that to what the local proxies want. Replicas
// of different releases may derive different content; proxies of the other replica are pending then until the rollout
// ends.
package peers
