// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package enrol captures one pod, and lets it go again: it gives the proxy the pod's listeners, has a certificate made
// for the pod's identity, and has the kernel redirect the pod's traffic, one step after the other. Which pods are to be
// captured is the business of package pods.
//
// Invariants:
//   - Nothing is redirected before the proxy listens in the pod's network namespace.
//   - What a pod's rules were when something was done for it last is known, so that each call does only what is
//     missing.
package enrol
