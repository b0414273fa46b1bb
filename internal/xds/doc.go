// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package xds is the delta ADS server of the mesh: a resource cache split into scopes, subscriptions with the ordering,
// flow control and NACK isolation that Envoy needs, and the book of what each proxy acknowledged. It knows the xDS
// transport protocol and no model: resources are named bytes to it.
//
// Only DeltaAggregatedResources is served
// (https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#incremental-xds).
//
// Life of a change:
//
//	Cache.Apply ─► marks the changed names on the streams that subscribe to them, wakes those, never blocks
//	stream      ─► decides what the client lacks, orders it (make before break), sends one response per type at a time;
//	               clusters that nothing names any more go a while later
//	client      ─► ACK or NACK; a NACK of several resources is bisected until the culprit stands alone
//	Server      ─► State and OnChange tell what is acknowledged, by whom, and why not
package xds
