// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package upstream makes what proxies connect to: clusters and their endpoints, how these are balanced, who may answer
// there and by which transport socket they are reached. It knows nothing of what leads to a cluster.
//
// A node proxy has a cluster for each address that pods of its node dial (Destination), and one for what arrives
// (Direct); a waypoint has one for each port of a Service (ServicePort, Inbound). All functions are pure and total.
package upstream
