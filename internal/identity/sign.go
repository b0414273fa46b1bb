// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrNotReady means that there is no CA that could sign now; asking again later helps.
var ErrNotReady = errors.New("the mesh has no usable CA now")

// leafUsages are the extended key usages of every leaf: a workload is client and server.
var leafUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}

// minLeaf is the shortest rest of a CA's life for which signing makes sense.
const minLeaf = time.Minute

// Leaf is an issued certificate with the chain that a peer needs.
type Leaf struct {
	Chain    []*x509.Certificate
	NotAfter time.Time
}

// PEM is the chain, leaf first.
func (l Leaf) PEM() []byte { return EncodeCertificates(l.Chain) }

// leafRequest is what goes into a leaf, decided by the operator alone; nothing is copied from a CSR but the key.
type leafRequest struct {
	public   crypto.PublicKey
	uri      string
	dnsNames []string
	lifetime time.Duration
}

// signLeaf issues a leaf that never outlives the CA's chain, and verifies the result as a peer would: an intermediate
// with constraints that exclude the leaf is noticed here, not by refused connections.
func signLeaf(s *Signer, req leafRequest, now time.Time) (Leaf, error) {
	if !s.Usable(now) || s.NotAfter().Sub(now) < minLeaf {
		return Leaf{}, ErrNotReady
	}
	uris, err := parseURI(req.uri)
	if err != nil {
		return Leaf{}, err
	}
	notBefore, notAfter := now.Add(-backdate), now.Add(req.lifetime)
	if caStart := s.Certificate().NotBefore; notBefore.Before(caStart) {
		notBefore = caStart
	}
	if caEnd := s.NotAfter(); notAfter.After(caEnd) {
		notAfter = caEnd
	}
	tmpl := &x509.Certificate{
		// A subject is not needed (SPIFFE X.509-SVID, 4.1); without one the SAN is critical (RFC 5280, 4.2.1.6).
		// The serial number is random, made by CreateCertificate.
		Subject:               pkix.Name{},
		URIs:                  uris,
		DNSNames:              req.dnsNames,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           leafUsages,
		BasicConstraintsValid: true,
		IsCA:                  false,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, s.Certificate(), req.public, s.Key.Signer())
	if err != nil {
		return Leaf{}, fmt.Errorf("sign a certificate for %s: %w", req.uri, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Leaf{}, fmt.Errorf("sign a certificate for %s: %w", req.uri, err)
	}
	leaf := Leaf{Chain: append([]*x509.Certificate{cert}, s.Chain...), NotAfter: cert.NotAfter}
	if err := (Bundle{Roots: []*x509.Certificate{s.Root}}).VerifyLeaf(leaf.Chain, now); err != nil {
		return Leaf{}, fmt.Errorf("a certificate for %s wouldn't verify, the CA may be constrained (path length, names, "+
			"usages): %w", req.uri, err)
	}
	return leaf, nil
}

func parseURI(id string) ([]*url.URL, error) {
	parsed, err := spiffeid.FromString(id)
	if err != nil {
		return nil, fmt.Errorf("%.300q isn't a SPIFFE ID: %w", id, err)
	}
	return []*url.URL{parsed.URL()}, nil
}

func createCSR(tmpl *x509.CertificateRequest, key PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
