// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gitops tests that what GitOps engines conclude agrees with what the mesh says: Argo CD's own health and diff, with the
// scripts of config/gitops/argocd, and Flux's, with the expressions of config/gitops/flux and kstatus. It is a module of its
// own, for Argo CD needs other versions of Go and of libraries than the mesh.
package gitops
