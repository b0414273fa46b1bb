// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

// BackendTLS is how the application behind a port is spoken TLS with.
type BackendTLS struct {
	// Refused: nothing that it presents could be verified, so nobody is connected to. Nothing else is set.
	Refused bool
	// Hostname is asked for in the handshake (SNI).
	Hostname string
	// Hosts and URIs: the certificate must have one of all of these as a subject alternative name. A host may begin with
	// a wildcard, and is then any that ends likewise.
	Hosts, URIs []string
	// CAs in PEM, one of which must have issued the certificate; System: one of those that the proxy's image has.
	CAs    string
	System bool
}
