// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package resets has the agent of a node reset connections of the waypoints there. A waypoint's own agent knows which
// must go, and has no right to touch sockets; the node's agent has, and knows no policy of a waypoint.
//
// They speak over an abstract Unix socket that the node's agent opens in the network namespace of the waypoint's pod.
// So nobody can ask but what runs in that pod, nothing can be asked for but connections of that pod, and no port,
// credential or network leads there. Whoever pretends to be a waypoint, in a pod of their own, can reset what they
// could close anyway. What a pod may ask for is bounded, in size and in time.
package resets
