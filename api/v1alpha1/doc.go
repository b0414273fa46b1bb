// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds Fairway's own kinds of API group fairway.dev, and the condition types and reasons that their
// statuses use. Everything a user can express with the Gateway API is expressed there; these kinds are only what it has
// no word for.
//
// +kubebuilder:object:generate=true
// +groupName=fairway.dev
package v1alpha1
