// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package waypoint makes the listeners of waypoints: who is let in, and how HTTP and TCP are spoken with callers. What
// happens to requests is package route's, and where they go package upstream's. Every function is pure and total: any
// value of the model gives resources that Envoy accepts.
//
// The way of a request:
//
//	peer ──mTLS──► listener "mtls": the server name (SNI) is a service port, and picks the filter chain
//	   ├─► http: the scope of that name leads to route configuration service/<ns>/<svc>/<port>
//	   │    └─► cluster service/<ns>/<svc>/<port> ─┐
//	   └─► tcp: cluster inbound/<port>.<svc>.<ns> ─┴─► endpoints waypoint/<ns>/<svc>/<port>
//	        ├──mTLS──► pod of the mesh
//	        └──TCP───► pod outside the mesh
//
// A connection is never handed from listener to listener within the proxy: Envoy doesn't tell a side that waits to
// write that the other one is gone (its issue 38148), and a reset would become an ordinary end.
//
// The listener depends on which ports there are and whether they are HTTP; its filter chains on neither. Everything
// that users edit is in route configurations and endpoints, so no edit ever drains a connection.
package waypoint
