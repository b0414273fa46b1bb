// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxBundleBytes bounds a trust bundle that is read: about 150 certificates.
const maxBundleBytes = 256 << 10

// generationPrefix starts the comment line that orders bundles. PEM readers (Go, BoringSSL) skip text outside blocks.
const generationPrefix = "# fairway trust bundle, generation "

// Bundle is a set of trust anchors. Generations order bundles of one mesh: whoever holds two keeps the higher one.
type Bundle struct {
	Generation int64
	Roots      []*x509.Certificate
}

// fingerprint names a certificate by the SHA-256 of its DER form, in hex.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// PEM is the bundle with its generation as a comment line; ParseBundle is its inverse.
func (b Bundle) PEM() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%d\n", generationPrefix, b.Generation)
	out.Write(EncodeCertificates(b.Roots))
	return out.Bytes()
}

// Pool is the bundle for crypto/x509.
func (b Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range b.Roots {
		pool.AddCert(r)
	}
	return pool
}

// Equal compares generation and roots, order included.
func (b Bundle) Equal(o Bundle) bool {
	if b.Generation != o.Generation || len(b.Roots) != len(o.Roots) {
		return false
	}
	for i := range b.Roots {
		if !b.Roots[i].Equal(o.Roots[i]) {
			return false
		}
	}
	return true
}

// Has tells whether a certificate is an anchor of the bundle.
func (b Bundle) Has(c *x509.Certificate) bool {
	for _, r := range b.Roots {
		if r.Equal(c) {
			return true
		}
	}
	return false
}

// VerifyLeaf checks that a chain (leaf first) leads to an anchor at a time, for TLS client and server use.
func (b Bundle) VerifyLeaf(chain []*x509.Certificate, at time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	for _, usage := range leafUsages {
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: b.Pool(), Intermediates: inter, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// VerifyIdentity checks that a peer's chain leads to an anchor, and that it is of a SPIFFE ID and of nobody else.
func (b Bundle) VerifyIdentity(chain []*x509.Certificate, id string, at time.Time) error {
	if err := b.VerifyLeaf(chain, at); err != nil {
		return err
	}
	if uris := chain[0].URIs; len(uris) != 1 || uris[0].String() != id {
		return fmt.Errorf("the certificate isn't for %s but for %.300q", id, uris)
	}
	return nil
}

// ParseBundle reads a PEM bundle. A bundle without generation line (one a person wrote) has generation 0. It is an
// error when there is no certificate or one that isn't a CA.
func ParseBundle(text []byte) (Bundle, error) {
	if len(text) > maxBundleBytes {
		return Bundle{}, fmt.Errorf("the trust bundle has %d bytes, more than the limit of %d", len(text), maxBundleBytes)
	}
	roots, err := ParseCertificates(text)
	if err != nil {
		return Bundle{}, fmt.Errorf("trust bundle: %w", err)
	}
	for _, r := range roots {
		if !r.BasicConstraintsValid || !r.IsCA {
			return Bundle{}, fmt.Errorf("trust bundle: certificate %q isn't a CA", r.Subject)
		}
	}
	return Bundle{Generation: parseGeneration(text), Roots: roots}, nil
}

func parseGeneration(text []byte) int64 {
	line, _, _ := strings.Cut(string(text[:min(len(text), 128)]), "\n")
	digits, ok := strings.CutPrefix(strings.TrimSpace(line), generationPrefix)
	if !ok {
		return 0
	}
	g, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || g < 0 {
		return 0
	}
	return g
}

// ParseCertificates reads every CERTIFICATE block of a PEM text, in order; none is an error.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d can't be parsed: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate found")
	}
	return certs, nil
}

// EncodeCertificates writes certificates as PEM, in order.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // writing to a Buffer can't fail
	}
	return out.Bytes()
}
