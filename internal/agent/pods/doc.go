// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pods follows the pods of one node: it brings each to where internal/member says it should be, says on the
// pod's condition v1alpha1.PodConditionCaptured how that went, and takes up after a restart what an earlier run of the
// agent left. How a pod is captured is the business of package enrol.
//
// Invariants:
//   - The condition is True only once the pod answers mTLS, because senders use mTLS from then on, and it is False
//     before the redirect goes.
//   - A pod that runs already is not restarted; its open connections go on as they are, in plaintext if they were.
//     Where
//     the mode is strict, or becomes so, those that others opened to it in plaintext end.
//   - What an earlier run captured stays captured until it is known that it must not be.
package pods
