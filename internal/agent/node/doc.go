// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node is the agent of one node: it watches the node's pods for package pods, answers the CNI plugin, keeps the
// plugin installed and the node's own rules in place, and takes all of it away when the mesh leaves the node. How
// rules, listeners and certificates are made is the business of the packages that it puts together.
//
// Invariants:
//   - A pod of the mesh starts only when its traffic is captured (CNI).
//   - What is captured stays captured while the agent is away, unless the mesh is being uninstalled.
package node
