// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests that run against a whole mesh in a real cluster: `make test-e2e` after `make cluster images
// deploy`, or with any KUBECONFIG whose cluster has Fairway and the image fairway.dev/test/tool.
//
// Each test has namespaces of its own, so tests that only look run in parallel. Tests that restart or remove parts of
// the mesh are not parallel: Go runs them before the parallel ones.
package e2e
