// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package authentication makes the HTTP filter with which a waypoint verifies tokens, of what its tables ask for. It is
// discovered by itself (ECDS), so neither listener nor table changes with a policy, and keys that a proxy has fetched
// outlive changes of routes. Which policies a request must satisfy, its table says in a header (package route).
package authentication
