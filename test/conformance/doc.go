// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conformance runs the Gateway API's own conformance suite, unmodified, against the cluster in KUBECONFIG: the
// profiles MESH-HTTP and MESH-GRPC with every extended mesh feature. It is a module of its own, so that what the suite
// needs does not become the product's: it is of a later release than the product's types, and needs a later Go.
package conformance
