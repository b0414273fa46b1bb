// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node enrols the pods of one node: it decides which pods the mesh captures, makes their listeners and has
// their certificates made, programs their network namespaces, and says on each pod's condition
// v1alpha1.PodConditionCaptured how that went. How rules, listeners and certificates are made is the business of the packages it calls.
//
// Invariants:
//   - Nothing is redirected before the proxy listens in the pod's network namespace.
//   - The condition is True only once the pod answers mTLS, because senders use mTLS from then on, and it is False
//     before the redirect goes.
//   - A pod of the mesh starts only when its traffic is captured (CNI). A pod that runs already is not restarted; its open
//     connections go on as they are, in plaintext if they were. Where the mode is strict, or becomes so, those that others
//     opened to it in plaintext end.
//   - What is captured stays captured while the agent is away, unless the mesh is being uninstalled.
package node
