// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// bundle is the validation context.
func bundle(ca *testca.CA) *tlsv3.Secret {
	return &tlsv3.Secret{Name: names.TrustBundleSecret, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(ca.PEM())},
	}}
}

// secret is a certificate for presented, under the name of another identity if the test wants it wrong.
func (m *mesh) secret(name, presented string) *tlsv3.Secret {
	certificate, key := testca.PEM(m.t, m.ca.Issue(presented))
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(certificate),
		PrivateKey:       inline(key),
	}}}
}

// issue makes an identity's certificate known to all nodes, with the bundle.
func (m *mesh) issue(identity string) {
	for _, n := range m.nodes {
		m.apply(n.scope(), names.TrustBundleSecret, bundle(m.ca))
		m.apply(n.scope(), identity, m.secret(identity, identity))
	}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
