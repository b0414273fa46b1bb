// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog" //nolint:depguard // only to be redacted by whoever logs with it
)

// redacted is what every way of printing a key yields.
const redacted = "[redacted private key]"

// PrivateKey holds key material and redacts itself however it is printed or encoded; PEM and Signer are the only ways
// to get at the key. The zero value holds no key.
type PrivateKey struct {
	// A closure, not the key: fmt prints unexported fields of an enclosing struct by reflection without asking
	// Format, and would show the bytes of an Ed25519 key.
	signer func() crypto.Signer
}

// NewPrivateKey wraps an existing signer.
func NewPrivateKey(s crypto.Signer) PrivateKey {
	if s == nil {
		return PrivateKey{}
	}
	return PrivateKey{signer: func() crypto.Signer { return s }}
}

// GenerateKey makes an ECDSA P-256 key, the type of every key that the mesh makes itself.
func GenerateKey() (PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("generate a private key: %w", err)
	}
	return NewPrivateKey(k), nil
}

// ParsePrivateKey reads the first private key of a PEM text (PKCS#8, SEC 1 or PKCS#1). Errors never quote the input.
func ParsePrivateKey(text []byte) (PrivateKey, error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			return PrivateKey{}, errors.New(
				"no PEM private key found; expected a block of type PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY")
		}
		switch block.Type {
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return PrivateKey{}, errors.New("the PKCS#8 private key can't be parsed")
			}
			s, ok := k.(crypto.Signer)
			if !ok {
				return PrivateKey{}, errors.New("the private key can't sign; use ECDSA, Ed25519 or RSA")
			}
			return NewPrivateKey(s), nil
		case "EC PRIVATE KEY":
			k, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return PrivateKey{}, errors.New("the EC private key can't be parsed")
			}
			return NewPrivateKey(k), nil
		case "RSA PRIVATE KEY":
			k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return PrivateKey{}, errors.New("the RSA private key can't be parsed")
			}
			return NewPrivateKey(k), nil
		}
	}
}

// present tells whether there is a key.
func (k PrivateKey) present() bool { return k.signer != nil }

// Signer is the key for use with crypto packages; nil when there is none.
func (k PrivateKey) Signer() crypto.Signer {
	if k.signer == nil {
		return nil
	}
	return k.signer()
}

// Matches tells whether the key belongs to a certificate.
func (k PrivateKey) Matches(cert *x509.Certificate) bool {
	if !k.present() || cert == nil {
		return false
	}
	pub, ok := k.Signer().Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}

// PEM is the key as PKCS#8 PEM: secret, for a Secret or for Envoy's SDS only.
func (k PrivateKey) PEM() ([]byte, error) {
	if !k.present() {
		return nil, errors.New("no private key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.Signer())
	if err != nil {
		return nil, errors.New("the private key can't be encoded as PKCS#8")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Format implements fmt.Formatter for every verb.
func (k PrivateKey) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(redacted)) }

// String implements fmt.Stringer.
func (k PrivateKey) String() string { return redacted }

// MarshalText implements encoding.TextMarshaler, hence JSON and YAML too.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLog implements logr.Marshaler.
func (k PrivateKey) MarshalLog() any { return redacted }

// LogValue implements slog.LogValuer, for the case that logr is backed by slog.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }
