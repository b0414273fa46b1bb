// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package canaries runs what docs/canaries.md shows: Flagger's own controller, beside the dev cluster, with the page's
// manifests. It is a module of its own, for Flagger needs other versions of libraries than the mesh.
package canaries
