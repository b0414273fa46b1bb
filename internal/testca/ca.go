// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testca is the certificate authority of tests: what a mesh's CA would issue, and what it never would.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA signs. The certificates are good from a minute before now on.
type CA struct {
	t testing.TB
	// Certificate and Key of the CA itself.
	Certificate *x509.Certificate
	Key         crypto.Signer
	// Now is when certificates are issued; the present time if nil.
	Now func() time.Time
}

// New makes a root for a trust domain, good for an hour.
func New(t testing.TB, trustDomain string) *CA {
	t.Helper()
	key := newKey(t)
	template := caTemplate(t, "root", time.Now(), time.Hour)
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain}}
	return &CA{t: t, Certificate: sign(t, template, template, key.Public(), key), Key: key}
}

// Of signs with a key that the test has.
func Of(t testing.TB, certificate *x509.Certificate, key crypto.Signer) *CA {
	return &CA{t: t, Certificate: certificate, Key: key}
}

// Intermediate makes a CA under this one; mutate changes what is to be signed.
func (a *CA) Intermediate(life time.Duration, mutate ...func(*x509.Certificate)) *CA {
	a.t.Helper()
	key := newKey(a.t)
	template := caTemplate(a.t, "intermediate", a.now(), life)
	for _, m := range mutate {
		m(template)
	}
	return &CA{t: a.t, Certificate: sign(a.t, template, a.Certificate, key.Public(), a.Key), Key: key, Now: a.Now}
}

// Issue makes a certificate with a SPIFFE ID, for both ends of a connection, good for an hour.
func (a *CA) Issue(id string) tls.Certificate {
	a.t.Helper()
	uri, err := url.Parse(id)
	require.NoError(a.t, err)
	return a.issue(func(c *x509.Certificate) { c.URIs = []*url.URL{uri} })
}

// IssueHost makes a certificate for a host name, likewise; mutate changes what is to be signed.
func (a *CA) IssueHost(host string, mutate ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	named := func(c *x509.Certificate) { c.DNSNames = []string{host} }
	return a.issue(append([]func(*x509.Certificate){named}, mutate...)...)
}

func (a *CA) issue(mutate ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, now := newKey(a.t), a.now()
	template := &x509.Certificate{
		SerialNumber: serial(a.t),
		NotBefore:    now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, m := range mutate {
		m(template)
	}
	leaf := sign(a.t, template, a.Certificate, key.Public(), a.Key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Pool trusts this CA.
func (a *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

// PEM is the CA's own certificate.
func (a *CA) PEM() []byte { return certificatePEM(a.Certificate.Raw) }

// PEM writes what was issued as two files would hold it.
func PEM(t testing.TB, c tls.Certificate) (certificate, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	return certificatePEM(c.Certificate[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *CA) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// caTemplate gives each CA a name of its own: chains are built by names.
func caTemplate(t testing.TB, kind string, now time.Time, life time.Duration) *x509.Certificate {
	t.Helper()
	n := serial(t)
	return &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: kind + " " + n.Text(36)}, NotBefore: now.Add(-time.Minute),
		NotAfter: now.Add(life),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	require.NoError(t, err)
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, public any, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
