// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// backdate is how far before the moment of signing a certificate starts to be valid, for clocks that lag.
const backdate = time.Minute

// DefaultRootLifetime is the lifetime of a root that the operator makes itself.
const DefaultRootLifetime = 10 * 365 * 24 * time.Hour

// Signer is a CA that signs leaves: its key, its chain and the root that vouches for it; or an External, which keeps
// its key to itself.
type Signer struct {
	// Origin tells where it comes from (OriginBuiltIn, or the name of an issuer), so that a changed
	// Mesh.spec.certificates is noticed.
	Origin string
	// Chain is what a leaf carries behind itself: the signing certificate and further intermediates, without the
	// root. Empty when the root itself signs.
	Chain []*x509.Certificate
	// Root is the anchor that verifiers need.
	Root *x509.Certificate
	// Key belongs to Certificate().
	Key PrivateKey
	// External signs instead of all these.
	External *External
}

// OriginBuiltIn is the origin of a root that the operator made itself.
const OriginBuiltIn = "built-in"

// anchors are the roots that verifiers need.
func (s *Signer) anchors() []*x509.Certificate {
	if s.External != nil {
		return s.External.Anchors
	}
	return []*x509.Certificate{s.Root}
}

// Certificate is the certificate whose key signs; nil where an External signs.
func (s *Signer) Certificate() *x509.Certificate {
	if len(s.Chain) > 0 {
		return s.Chain[0]
	}
	return s.Root
}

// NotAfter is when the first certificate of the chain, root included, expires, or the last root of an External.
func (s *Signer) NotAfter() time.Time {
	if s.External != nil {
		return s.External.notAfter()
	}
	t := s.Root.NotAfter
	for _, c := range s.Chain {
		if c.NotAfter.Before(t) {
			t = c.NotAfter
		}
	}
	return t
}

// Usable tells whether it can sign at a time.
func (s *Signer) Usable(at time.Time) bool {
	if s != nil && s.External != nil {
		return s.External.usable(at)
	}
	if s == nil || at.Before(s.Root.NotBefore) {
		return false
	}
	for _, c := range s.Chain {
		if at.Before(c.NotBefore) {
			return false
		}
	}
	return at.Before(s.NotAfter())
}

// Same tells whether two signers have the same signing certificate and root, or are the same issuer with the same
// roots.
func (s *Signer) Same(o *Signer) bool {
	if s == nil || o == nil {
		return s == o
	}
	if s.External != nil || o.External != nil {
		return s.External.same(o.External)
	}
	return s.Certificate().Equal(o.Certificate()) && s.Root.Equal(o.Root) && s.Origin == o.Origin
}

// NewRoot makes a self-signed ECDSA P-256 root for a trust domain. Its URI SAN is the trust domain's SPIFFE ID, as the
// X.509-SVID specification wants of a signing certificate.
func NewRoot(trustDomain string, lifetime time.Duration, now time.Time) (*Signer, error) {
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	now = now.Truncate(time.Second)
	tmpl := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Fairway"}, CommonName: "Fairway mesh root for " +
			trustDomain},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Signer().Public(), key.Signer())
	if err != nil {
		return nil, fmt.Errorf("make a self-signed root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a self-signed root: %w", err)
	}
	return &Signer{Origin: OriginBuiltIn, Root: cert, Key: key}, nil
}

// ParseSigner reads a CA from the three PEM values of a TLS Secret: chain (signing certificate first), key, and the
// anchors among which is the chain's root. Errors say which of them is wrong and what it must be.
func ParseSigner(origin string, chainPEM, keyPEM, anchorsPEM []byte) (*Signer, error) {
	chain, err := ParseCertificates(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	key, err := ParsePrivateKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	if len(anchorsPEM) == 0 {
		return nil, errors.New("ca.crt is empty: the issuer doesn't say which root verifies its certificates; use an " +
			"issuer that fills ca.crt")
	}
	anchors, err := ParseCertificates(anchorsPEM)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	if err := checkCA(chain[0], key); err != nil {
		return nil, err
	}
	return assemble(origin, chain, key, anchors)
}

func checkCA(c *x509.Certificate, key PrivateKey) error {
	switch {
	case !key.Matches(c):
		return errors.New("tls.key doesn't belong to the first certificate of tls.crt")
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("tls.crt isn't a CA certificate; the Certificate must have isCA: true and the issuer must grant it")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("tls.crt may not sign certificates; the Certificate needs the usage \"cert sign\"")
	}
	return checkPublicKey(c.PublicKey)
}

// assemble finds the anchor to which the chain leads, and drops it from the chain. The time of the check is within the
// validity of every certificate involved where there is such a time: expiry is Usable's concern, not that of parsing.
func assemble(origin string, chain []*x509.Certificate, key PrivateKey, anchors []*x509.Certificate) (*Signer, error) {
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range anchors {
		roots.AddCert(a)
	}
	at := chain[0].NotBefore
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	for _, c := range append(chain[1:len(chain):len(chain)], anchors...) {
		if c.NotBefore.After(at) && c.NotBefore.Before(chain[0].NotAfter) {
			at = c.NotBefore
		}
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: at.Add(time.Second),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("tls.crt doesn't lead to a certificate of ca.crt: %w", err)
	}
	path := paths[0]
	for _, p := range paths[1:] {
		if len(p) < len(path) {
			path = p
		}
	}
	return &Signer{Origin: origin, Chain: path[:len(path)-1], Root: path[len(path)-1], Key: key}, nil
}
