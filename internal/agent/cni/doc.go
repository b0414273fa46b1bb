// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cni is the agent's side of pod start: it installs the CNI plugin on the node, behind the cluster's own
// plugins, and takes the plugin's questions on a Unix socket. What a question means for a pod is its Handler's
// business.
package cni
