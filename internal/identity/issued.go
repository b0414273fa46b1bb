// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"
)

const (
	// maxIssuedBytes and maxIssuedChain bound a chain that an issuer gives: proxies get it as it is.
	maxIssuedBytes = 64 << 10
	maxIssuedChain = 8
	// minIssuedLife is the shortest rest of a life with which a certificate is of use: it is renewed after half of it.
	minIssuedLife = 5 * time.Minute
	// issuedSkew is how much longer than asked for a certificate may live: the clock of whoever signs isn't ours. The
	// margin of a rotation is longer.
	issuedSkew = 5 * time.Minute
)

// wanted is what an issuer was asked for.
type wanted struct {
	public   crypto.PublicKey
	id       string
	lifetime time.Duration
	anchors  []*x509.Certificate
}

// check turns an issuer's answer into a leaf, or refuses it: the key must be that of the request, the one name the
// SPIFFE ID, the certificate no CA and for both ends of TLS, not longer lived than asked for, and lead to an anchor.
// The chain of the leaf is the one that was verified, and nothing that came with it.
func (w wanted) check(answer ExternalAnswer, now time.Time) (Leaf, error) {
	leaf, err := w.verify(answer, now)
	if err != nil {
		return Leaf{}, Issuef(IssueRefused, "the certificate that the issuer gave for %s isn't used: %v", w.id, err)
	}
	return leaf, nil
}

func (w wanted) verify(answer ExternalAnswer, now time.Time) (Leaf, error) {
	if len(answer.Certificate) > maxIssuedBytes {
		return Leaf{}, fmt.Errorf("it has %d bytes, more than the limit of %d", len(answer.Certificate), maxIssuedBytes)
	}
	certs, err := ParseCertificates(answer.Certificate)
	if err != nil {
		return Leaf{}, err
	}
	if len(certs) > maxIssuedChain {
		return Leaf{}, fmt.Errorf("its chain has %d certificates, more than the limit of %d", len(certs), maxIssuedChain)
	}
	leaf := certs[0]
	for _, check := range []func(*x509.Certificate, time.Time) error{w.checkKey, w.checkNames, w.checkUse, w.checkLife} {
		if err := check(leaf, now); err != nil {
			return Leaf{}, err
		}
	}
	path, err := w.path(certs, now)
	if err != nil {
		return Leaf{}, fmt.Errorf("%w%s", err, w.claimed(answer.CA))
	}
	return Leaf{Chain: path, NotAfter: leaf.NotAfter}, nil
}

func (w wanted) checkKey(c *x509.Certificate, _ time.Time) error {
	// All kinds of keys that checkPublicKey lets pass can be compared.
	if key, ok := w.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(c.PublicKey) {
		return fmt.Errorf("it is for another key than the request's")
	}
	return nil
}

// checkNames counts the names in the raw form: Go's parser skips kinds of names that it has no field for.
func (w wanted) checkNames(c *x509.Certificate, _ time.Time) error {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var found []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &found); err != nil || len(rest) != 0 {
			return fmt.Errorf("its subject alternative name can't be parsed")
		}
		if len(found) != 1 || found[0].Class != asn1.ClassContextSpecific || found[0].Tag != tagURI ||
			string(found[0].Bytes) != w.id {
			return fmt.Errorf("its names are not exactly the URI %s; the issuer must take the names of a request and add none",
				w.id)
		}
		return nil
	}
	return fmt.Errorf("it has no name; the issuer must take the URI of a request (of Vault, the role's allowed_uri_sans)")
}

func (w wanted) checkUse(c *x509.Certificate, _ time.Time) error {
	switch {
	case c.IsCA:
		return fmt.Errorf("it is a CA's")
	case c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return fmt.Errorf("it may sign certificates")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("it may not make digital signatures, which TLS takes")
	}
	return nil
}

func (w wanted) checkLife(c *x509.Certificate, now time.Time) error {
	rest := c.NotAfter.Sub(now)
	switch {
	case rest > w.lifetime+issuedSkew:
		return fmt.Errorf("it is good until %s, longer than the %s that were asked for (spec.certificates.leafLifetime of "+
			"the Mesh); the issuer must keep to the duration of a request", c.NotAfter.UTC().Format(time.RFC3339), w.lifetime)
	case rest < minIssuedLife:
		return fmt.Errorf("it is good until %s, for less than %s; the issuer must allow longer lives",
			c.NotAfter.UTC().Format(time.RFC3339), minIssuedLife)
	}
	return nil
}

// path is the shortest chain that leads to an anchor, without it, for both usages.
func (w wanted) path(certs []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	inter, bundle := x509.NewCertPool(), Bundle{Roots: w.anchors}
	for _, c := range certs[1:] {
		inter.AddCert(c)
	}
	found, err := certs[0].Verify(x509.VerifyOptions{
		Roots: bundle.Pool(), Intermediates: inter, CurrentTime: now, KeyUsages: leafUsages[:1],
	})
	if err != nil {
		return nil, fmt.Errorf("it doesn't lead to a root of the trust bundle: %w", err)
	}
	for _, chain := range found {
		chain = chain[:len(chain)-1]
		if len(chain) > 0 && bundle.VerifyLeaf(chain, now) == nil {
			return chain, nil
		}
	}
	return nil, fmt.Errorf("it isn't for client authentication and server authentication both; the issuer must take the " +
		"usages of a request")
}

// claimed names the CA that the issuer claims, for an administrator who has to decide whether it belongs into the trust
// bundle.
func (w wanted) claimed(ca []byte) string {
	if len(ca) > maxIssuedBytes {
		return ""
	}
	certs, err := ParseCertificates(ca)
	if err != nil || (Bundle{Roots: w.anchors}).Has(certs[0]) {
		return ""
	}
	return fmt.Sprintf(" (the issuer calls %.200q its CA, SHA-256 %x, which isn't in the trust bundle)",
		certs[0].Subject, sha256.Sum256(certs[0].Raw))
}
