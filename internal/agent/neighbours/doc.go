// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package neighbours has connections between captured pods of a node pass its proxy once, where nothing but the mesh's
// mTLS lies between them. What the operator says of addresses and guards, and which pods are captured, decide
// (Ways, which is pure); the Keeper tells the proxy, and takes back what is about to change before the proxy hears of
// the change.
package neighbours
