// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds Fairway's own kinds of API group fairway.dev. Everything a user can express with the Gateway
// API is expressed there; these kinds are only what it has no word for.
//
// It also holds every condition type and reason that is Fairway's own, of whatever kind's status, and of Events: people
// wait for them and tools compare them, so they are API. No other package declares one.
//
// +kubebuilder:object:generate=true
// +groupName=fairway.dev
package v1alpha1
