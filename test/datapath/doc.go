// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package datapath tests how connections travel: two stock Envoys on two "nodes" made of network namespaces, pods in
// namespaces of their own, the project's capture rules, node configuration and xDS server, and certificates issued by
// the test. There is no Kubernetes in it. It needs root and an Envoy binary (FAIRWAY_ENVOY or PATH), and is skipped
// without them.
package datapath
