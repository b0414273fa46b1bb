// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package identity is the mesh's certificate authority as pure values: keys, the trust bundle, signing of SPIFFE
// X.509-SVIDs and the rotation of the CA with overlap. It knows no Kubernetes client: auth decides who may ask, keeper
// stores the state, server speaks HTTPS.
package identity
