// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers holds the operator's reconcilers, one per concern: the Mesh and its node proxies, GatewayClasses,
// the infrastructure and status of waypoints, automatic waypoints, and the XMesh status. They watch, decide with the
// pure packages of internal, and write by server-side apply; what they own is watched, so drift is repaired. Routing is
// none of their business: the engine does that, and tells them what they need through the small interfaces of Options.
//
// All of them run on the leader alone.
package controllers
