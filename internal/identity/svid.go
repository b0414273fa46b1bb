// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// SVID is an identity together with its key, as one gives it who makes both.
type SVID struct {
	// Chain is the certificate and what a peer needs behind it.
	Chain []*x509.Certificate
	Key   PrivateKey
}

// Pod is one for which an identity is wanted. Some issuers give an identity not to a service account but to a pod.
type Pod struct{ UID, Name string }

// Bounds of what is taken from whoever gives identities: proxies get it as it is.
const (
	// maxGivenChain is more than a hierarchy of CAs has levels.
	maxGivenChain = maxIssuedChain
	// MaxGivenRoots leaves room for nested and rotating CAs.
	MaxGivenRoots = 64
)

// NewSVID takes over what go-spiffe has parsed, by which it is of the form that SPIFFE wants: one URI, no CA, no right
// to sign, and the key of the certificate.
func NewSVID(s *x509svid.SVID) SVID {
	return SVID{Chain: s.Certificates, Key: NewPrivateKey(s.PrivateKey)}
}

// ID is the SPIFFE ID.
func (s SVID) ID() string {
	if len(s.Chain) == 0 || len(s.Chain[0].URIs) != 1 {
		return ""
	}
	return s.Chain[0].URIs[0].String()
}

// Same tells whether both have the same certificate.
func (s SVID) Same(o SVID) bool {
	return len(s.Chain) > 0 && len(o.Chain) > 0 && s.Chain[0].Equal(o.Chain[0])
}

// NotAfter is when the certificate expires.
func (s SVID) NotAfter() time.Time { return s.Chain[0].NotAfter }

// Overdue is when whoever gives it should have renewed it: two thirds of its life are over, and SPIRE renews after
// half.
func (s SVID) Overdue() time.Time {
	c := s.Chain[0]
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// Check refuses what is of another identity, isn't valid now, leads to no root of the bundle, or is what a proxy would
// reject.
func (s SVID) Check(id string, b Bundle, now time.Time) error {
	switch {
	case len(s.Chain) == 0:
		return fmt.Errorf("there is no certificate")
	case len(s.Chain) > maxGivenChain:
		return fmt.Errorf("its chain has %d certificates, more than the limit of %d", len(s.Chain), maxGivenChain)
	case !s.Key.Matches(s.Chain[0]):
		return fmt.Errorf("it is for another key than the one that came with it")
	}
	if err := checkPublicKey(s.Chain[0].PublicKey); err != nil {
		return err
	}
	return b.VerifyIdentity(s.Chain, id, now)
}

// TLS is the certificate for crypto/tls.
func (s SVID) TLS() *tls.Certificate {
	out := &tls.Certificate{PrivateKey: s.Key.Signer(), Leaf: s.Chain[0]}
	for _, c := range s.Chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// Given checks roots that whoever gives identities names as its own.
func Given(roots []*x509.Certificate) error {
	if len(roots) == 0 {
		return fmt.Errorf("it has no root")
	}
	if len(roots) > MaxGivenRoots {
		return fmt.Errorf("it has %d roots, more than the limit of %d", len(roots), MaxGivenRoots)
	}
	for _, r := range roots {
		if !r.BasicConstraintsValid || !r.IsCA {
			return fmt.Errorf("its root %.200q isn't a CA", r.Subject)
		}
	}
	return nil
}

// ErrOverdue says of an identity that it should have been renewed.
var ErrOverdue = errors.New("SPIRE hasn't renewed it, though two thirds of its life are over: SPIRE's agent may not " +
	"reach its server")
