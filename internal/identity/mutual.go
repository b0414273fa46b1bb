// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// MutualConfig is the TLS configuration with which the replicas of one workload talk to each other, for dialling and
// for serving: TLS 1.3 only, both ends present a certificate of the mesh CA for the SPIFFE ID of the service account,
// verify the other's against the current bundle, and accept no other identity. Where the other end is does not matter.
// Handshakes fail while there is no CA.
func (a *Authority) MutualConfig(namespace, serviceAccount string) *tls.Config {
	s := a.serving(namespace, serviceAccount)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate(hello.Context())
		},
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.certificate(r.Context())
		},
		// The chain is verified below, the same way on both ends: SPIFFE IDs are no host names.
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the chain and the identity
		VerifyConnection:   s.verifyPeer,
		// A resumed session would rest on a former bundle.
		SessionTicketsDisabled: true,
	}
}

// verifyPeer accepts a peer with a valid certificate of the own identity.
func (s *serving) verifyPeer(cs tls.ConnectionState) error {
	trustDomain, bundle := s.authority.TrustDomain(), s.authority.Bundle()
	if len(bundle.Roots) == 0 {
		return ErrNotReady
	}
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return err
	}
	roots := x509bundle.FromX509Authorities(td, bundle.Roots)
	id, _, err := x509svid.Verify(cs.PeerCertificates, roots, x509svid.WithTime(s.authority.now()))
	if err != nil {
		return fmt.Errorf("the peer's certificate: %w", err)
	}
	if want := s.id(trustDomain); id.String() != want {
		return fmt.Errorf("the peer is %.300q and not %s", id, want)
	}
	return nil
}
