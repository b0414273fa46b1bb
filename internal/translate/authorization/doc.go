// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package authorization makes, of guards, what proxies carry out.
//
// Connections are decided by a verdict (names.FilterStateVerdict): the filter that Node and TCP configure sets it, with
// expressions in CEL, and what comes behind lets in whose verdict is empty. All else is closed: an expression that
// fails gives a verdict that isn't empty.
//
// All functions are pure.
package authorization
