// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

// servingLifetime bounds the operator's own certificate. It may not exceed a leaf's lifetime, on which rotation counts.
const servingLifetime = 12 * time.Hour

// Authority signs with the newest State it was given. Every replica has one; it is safe for concurrent use.
type Authority struct {
	now   func() time.Time
	state atomic.Pointer[State]

	signed atomic.Uint64
}

// NewAuthority makes an authority that refuses with ErrNotReady until Update. now is time.Now unless a test says else.
func NewAuthority(now func() time.Time) *Authority {
	if now == nil {
		now = time.Now
	}
	return &Authority{now: now}
}

// TrustDomain is the domain of every identity it signs; empty while there is no CA.
func (a *Authority) TrustDomain() string {
	if s := a.state.Load(); s != nil {
		return s.TrustDomain
	}
	return ""
}

// Update replaces the state.
func (a *Authority) Update(s State) { a.state.Store(&s) }

// Ready is nil when the authority can sign now, and else says why not.
func (a *Authority) Ready() error {
	s := a.state.Load()
	switch {
	case s == nil || s.Active == nil:
		return errors.New("the mesh has no CA yet: the leader makes it, or cert-manager hasn't issued it; see the Mesh's " +
			"conditions")
	case !s.Active.Usable(a.now()):
		return errors.New("the mesh's CA has expired or isn't valid yet; see the Mesh's conditions")
	}
	return nil
}

// Bundle is the current trust bundle; empty while there is no CA.
func (a *Authority) Bundle() Bundle {
	if s := a.state.Load(); s != nil {
		return s.Bundle()
	}
	return Bundle{}
}

// Sign issues a leaf for a SPIFFE ID from a PEM request. It checks the request (ErrBadRequest), not the right to make
// it. ErrNotReady: there is no CA to sign with now.
func (a *Authority) Sign(_ context.Context, csr []byte, id string) (Leaf, error) {
	leaf, err := a.sign(csr, id)
	if err != nil {
		return Leaf{}, err
	}
	a.signed.Add(1)
	return leaf, nil
}

func (a *Authority) sign(csr []byte, id string) (Leaf, error) {
	s, err := a.current()
	if err != nil {
		return Leaf{}, err
	}
	if _, _, err := ParseID(s.TrustDomain, id); err != nil {
		return Leaf{}, err
	}
	public, err := parseCSR(csr, id)
	if err != nil {
		return Leaf{}, err
	}
	return signLeaf(s.Active, leafRequest{public: public, uri: id, lifetime: s.leafLifetime}, a.now())
}

func (a *Authority) current() (*State, error) {
	s := a.state.Load()
	if s == nil || s.Active == nil || s.leafLifetime <= 0 || s.TrustDomain == "" {
		return nil, ErrNotReady
	}
	return s, nil
}

// ServingConfig is the TLS configuration of the operator's servers: TLS 1.3 with a certificate of the mesh CA for the
// SPIFFE ID of a service account and the DNS names, issued on first use and again after half of its life or when
// another CA signs. The key stays in memory. Handshakes fail while there is no CA.
func (a *Authority) ServingConfig(namespace, serviceAccount string, dnsNames ...string) *tls.Config {
	s := &serving{authority: a, namespace: namespace, serviceAccount: serviceAccount, dnsNames: dnsNames}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate()
		},
	}
}

// serving keeps the operator's own certificate fresh.
type serving struct {
	authority                 *Authority
	namespace, serviceAccount string
	dnsNames                  []string

	mu      sync.Mutex
	cert    *tls.Certificate
	issuer  *x509.Certificate
	renewAt time.Time
}

func (s *serving) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.now()
	st, err := s.authority.current()
	if err != nil {
		return nil, err
	}
	if s.cert != nil && now.Before(s.renewAt) && s.issuer.Equal(st.Active.Certificate()) {
		return s.cert, nil
	}
	cert, leaf, err := s.issue(st, now)
	if err != nil {
		if s.cert != nil && now.Before(s.cert.Leaf.NotAfter) {
			return s.cert, nil // still good; a later handshake tries again
		}
		return nil, err
	}
	s.cert, s.issuer = cert, st.Active.Certificate()
	s.renewAt = now.Add(leaf.NotAfter.Sub(now) / 2)
	return cert, nil
}

func (s *serving) issue(st *State, now time.Time) (*tls.Certificate, Leaf, error) {
	key, err := GenerateKey()
	if err != nil {
		return nil, Leaf{}, err
	}
	leaf, err := signLeaf(st.Active, leafRequest{
		public:   key.Signer().Public(),
		uri:      names.SPIFFEID(st.TrustDomain, s.namespace, s.serviceAccount),
		dnsNames: s.dnsNames,
		lifetime: min(servingLifetime, st.leafLifetime),
	}, now)
	if err != nil {
		return nil, Leaf{}, err
	}
	cert := &tls.Certificate{PrivateKey: key.Signer(), Leaf: leaf.Chain[0]}
	for _, c := range leaf.Chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, leaf, nil
}
