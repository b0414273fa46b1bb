// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairway-mesh/fairway/internal/names"
)

// maxCSRBytes bounds the PEM text of a certificate request: an RSA-8192 request has about 3 KiB.
const maxCSRBytes = 16 << 10

const (
	minRSABits = 2048
	maxRSABits = 8192 // a verification costs more with every bit; nothing needs longer keys
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// tagURI is the context-specific tag of uniformResourceIdentifier in GeneralName (RFC 5280, 4.2.1.6).
const tagURI = 6

// ErrBadRequest marks a request that can never be granted as it is written; the text says what is wrong.
var ErrBadRequest = errors.New("certificate request refused")

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadRequest, fmt.Sprintf(format, args...))
}

// ParseID checks that id is a SPIFFE ID of the trust domain and of the mesh's form, and takes it apart.
func ParseID(trustDomain, id string) (namespace, serviceAccount string, err error) {
	td, ns, sa, ok := names.ParseSPIFFEID(id)
	if !ok {
		return "", "", badRequest("identity %.300q isn't of the form spiffe://<trust domain>/ns/<namespace>/sa/<service "+
			"account>", id)
	}
	if td != trustDomain {
		return "", "", badRequest("identity %.300q isn't in the trust domain %q", id, trustDomain)
	}
	if len(validation.IsDNS1123Label(ns)) > 0 || len(validation.IsDNS1123Subdomain(sa)) > 0 {
		return "", "", badRequest("identity %.300q has a namespace or service account that Kubernetes couldn't have", id)
	}
	return ns, sa, nil
}

// parseCSR reads a PEM certificate request for an identity and accepts exactly what an agent makes: a valid signature
// of an allowed key, an empty subject, and one extension, the subject alternative name, with one URI that is the
// identity. Everything else is ErrBadRequest: the signer would ignore it, and whoever sent it meant something by it.
func parseCSR(text []byte, id string) (crypto.PublicKey, error) {
	if len(text) > maxCSRBytes {
		return nil, badRequest("the request has %d bytes, more than the limit of %d", len(text), maxCSRBytes)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, badRequest("expected one PEM block of type CERTIFICATE REQUEST")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, badRequest("more than one PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, badRequest("it can't be parsed: %v", err)
	}
	// The key first: checking a signature by a key that isn't allowed is work for an attacker.
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, badRequest("%v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, badRequest("its signature doesn't verify: %v", err)
	}
	if len(csr.Subject.Names) != 0 {
		return nil, badRequest("its subject must be empty, the identity is the URI")
	}
	if err := checkSAN(csr, id); err != nil {
		return nil, err
	}
	return csr.PublicKey, nil
}

func checkSAN(csr *x509.CertificateRequest, id string) error {
	if len(csr.Extensions) != 1 || !csr.Extensions[0].Id.Equal(oidSubjectAltName) {
		return badRequest("it must ask for exactly one extension, the subject alternative name")
	}
	// Go's parser skips kinds of names that it has no field for, so they are counted in the raw form.
	var names []asn1.RawValue
	rest, err := asn1.Unmarshal(csr.Extensions[0].Value, &names)
	if err != nil || len(rest) != 0 {
		return badRequest("its subject alternative name can't be parsed")
	}
	if len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != tagURI {
		return badRequest("it must name exactly one URI and nothing else")
	}
	if got := string(names[0].Bytes); got != id {
		return badRequest("its URI is %.300q, but the identity asked for is %.300q", got, id)
	}
	return nil
}

func checkPublicKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("ECDSA curve %s isn't allowed; use P-256 or P-384", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits isn't allowed; use %d to %d", n, minRSABits, maxRSABits)
		}
		return nil
	}
	return errors.New("this type of key isn't allowed; use ECDSA P-256 or P-384, Ed25519 or RSA")
}

// NewCSR makes a request as parseCSR accepts it.
func NewCSR(id string, key PrivateKey) ([]byte, error) {
	uri, err := parseURI(id)
	if err != nil {
		return nil, err
	}
	if !key.present() {
		return nil, errors.New("no private key")
	}
	return createCSR(&x509.CertificateRequest{URIs: uri}, key)
}
