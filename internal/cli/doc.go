// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli holds the commands that people use: status, check, explain and proxy. They only read: Kubernetes objects
// through the API server, and the read-only interfaces of operator and agents (package introspect) through its
// port-forward.
package cli
