// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// certificateSecret is a certificate with its key, named by the SPIFFE ID. The message holds the key in clear, so it
// must not be logged.
func certificateSecret(id string, chain []byte, key identity.PrivateKey) (*tlsv3.Secret, error) {
	text, err := key.PEM()
	if err != nil {
		return nil, err
	}
	return &tlsv3.Secret{
		Name: id,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(chain),
			PrivateKey:       inline(text),
		}},
	}, nil
}

// bundleSecret is the validation context. It says nothing of names: Envoy appends the matchers of a dynamic context to
// those of the listener or cluster, and since any of them suffices, one here would undo the pinning there.
func bundleSecret(b identity.Bundle) *tlsv3.Secret {
	return &tlsv3.Secret{
		Name: names.TrustBundleSecret,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(identity.EncodeCertificates(b.Roots)),
		}},
	}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

// check makes sure that what the operator signed is what was asked for, with the key made here, and returns its end.
func check(id string, key identity.PrivateKey, s Signed) (notAfter time.Time, err error) {
	certs, err := identity.ParseCertificates(s.Chain)
	if err != nil {
		return time.Time{}, fmt.Errorf("the operator's certificate: %w", err)
	}
	leaf := certs[0]
	switch {
	case !key.Matches(leaf):
		return time.Time{}, errors.New("the operator's certificate is for another key")
	case len(leaf.URIs) != 1 || leaf.URIs[0].String() != id:
		return time.Time{}, fmt.Errorf("the operator's certificate isn't for %s", id)
	}
	return leaf.NotAfter, nil
}
