// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package waypoint runs a real Envoy as a waypoint, programmed by the project's own translation and xDS server, between
// mTLS clients and mTLS servers written here in Go. All traffic stays on loopback.
package waypoint

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/fairway-mesh/fairway/internal/testca"
)

// peer verifies that the other side has one of the identities; none: any of the authority.
func peer(a *testca.CA, ids ...string) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(
			x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if s.PeerCertificates[0].URIs[0].String() == id {
				return nil
			}
		}
		return errWrongPeer
	}
}
