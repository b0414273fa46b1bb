// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wasm judges modules in WebAssembly before proxies get them: whether Envoy would take one, what it asks for,
// and how much memory it may have. It runs none. What a module says of itself is measured before anything is made by
// it, so that a small file can't ask for much.
package wasm
