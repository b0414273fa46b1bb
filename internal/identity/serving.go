// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// servingLifetime bounds the operator's own certificate. It may not exceed a leaf's lifetime, on which rotation
	// counts.
	servingLifetime = 12 * time.Hour
	// servingRetry is the wait before an external CA is asked again for the operator's own certificate.
	servingRetry = 10 * time.Second
	// servingTimeout bounds one request for it.
	servingTimeout = time.Minute
)

// ServingConfig is the TLS configuration of the operator's servers: TLS 1.3 with a certificate of the mesh CA for the
// SPIFFE ID of a service account and the DNS names, issued on first use and again after half of its life or when
// another CA signs. An external CA isn't asked for the DNS names: agents go by the SPIFFE ID. The key stays in memory.
// Where identities come from outside, it is the certificate that is given.
// Handshakes fail while there is no CA.
func (a *Authority) ServingConfig(namespace, serviceAccount string, dnsNames ...string) *tls.Config {
	s := a.serving(namespace, serviceAccount, dnsNames...)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate(hello.Context())
		},
	}
}

func (a *Authority) serving(namespace, serviceAccount string, dnsNames ...string) *serving {
	s := &serving{authority: a, namespace: namespace, serviceAccount: serviceAccount, dnsNames: dnsNames}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.servings = append(a.servings, s)
	return s
}

// serving keeps the operator's own certificate fresh.
type serving struct {
	authority                 *Authority
	namespace, serviceAccount string
	dnsNames                  []string

	mu      sync.Mutex
	cert    *tls.Certificate
	signer  *Signer
	renewAt time.Time
	// asking is closed when an external CA has answered; nil while none is asked.
	asking chan struct{}
	// failed is what it answered last, if that was no certificate; until askAt it isn't asked again.
	failed error
	askAt  time.Time
}

// certificate is a valid certificate. It waits only for an external CA, and only without any.
func (s *serving) certificate(ctx context.Context) (*tls.Certificate, error) {
	cert, asking, err := s.current() //nolint:contextcheck // whom it asks, others wait for as well
	if asking == nil {
		return cert, err
	}
	select {
	case <-asking:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	cert, _, err = s.current() //nolint:contextcheck // as above
	return cert, err
}

// ready tells whether there is a certificate, and sees to it that there will be one.
func (s *serving) ready() error {
	_, asking, err := s.current()
	if asking == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	return errors.New("the issuer is being asked")
}

// current is the certificate as it is, renewed where that takes no waiting. asking is what to wait for where there is
// none yet.
func (s *serving) current() (cert *tls.Certificate, asking <-chan struct{}, err error) {
	if o := s.authority.from(); o != nil {
		cert, err := o.Certificate(s.id(o.TrustDomain()))
		return cert, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.now()
	st, err := s.authority.current()
	if err != nil {
		return nil, nil, err
	}
	if s.cert != nil && now.Before(s.renewAt) && s.signer.Same(st.Active) {
		return s.cert, nil, nil
	}
	if st.Active.External != nil {
		s.ask(st, now)
		err = cmp.Or(s.failed, ErrNotReady)
	} else if err = s.issue(st, now); err == nil {
		return s.cert, nil, nil
	}
	switch {
	case s.cert != nil && now.Before(s.cert.Leaf.NotAfter):
		return s.cert, nil, nil // still good; a later handshake tries again
	case s.asking != nil:
		return nil, s.asking, nil
	}
	return nil, nil, err
}

// issue signs with the mesh's own CA; the lock is held.
func (s *serving) issue(st *State, now time.Time) error {
	key, err := GenerateKey()
	if err != nil {
		return err
	}
	leaf, err := signLeaf(st.Active, leafRequest{
		public:   key.Signer().Public(),
		uri:      s.id(st.TrustDomain),
		dnsNames: s.dnsNames,
		lifetime: min(servingLifetime, st.leafLifetime),
	}, now)
	if err != nil {
		return err
	}
	s.take(key, leaf, st.Active, now)
	return nil
}

// ask begins to ask an external CA, unless that is under way or failed a moment ago; the lock is held.
func (s *serving) ask(st *State, now time.Time) {
	if s.asking != nil || now.Before(s.askAt) || s.authority.life == nil {
		return
	}
	done := make(chan struct{})
	s.asking = done
	ctx, cancel := context.WithTimeout(s.authority.life, servingTimeout)
	go func() {
		defer cancel()
		key, leaf, err := s.fetch(ctx, st)
		s.mu.Lock()
		defer s.mu.Unlock()
		now := s.authority.now()
		s.tell(st, err)
		s.asking, s.failed = nil, err
		if err == nil {
			s.take(key, leaf, st.Active, now)
		} else {
			s.askAt = now.Add(servingRetry)
		}
		close(done)
	}()
}

// tell lets people know when the operator's own certificate can't be renewed; the lock is held.
func (s *serving) tell(st *State, err error) {
	switch r := s.authority.renewals; {
	case r == nil:
	case err == nil:
		r.Renewed(OwnHolder, s.id(st.TrustDomain))
	default:
		var held Held
		if s.cert != nil {
			held.NotAfter = s.cert.Leaf.NotAfter
		}
		r.Failed(Failure{Holder: OwnHolder, Identity: s.id(st.TrustDomain), Held: held, Err: err})
	}
}

// OwnHolder is the operator among those who ask in vain.
const OwnHolder = "the operator itself"

func (s *serving) fetch(ctx context.Context, st *State) (PrivateKey, Leaf, error) {
	key, err := GenerateKey()
	if err != nil {
		return key, Leaf{}, err
	}
	csr, err := NewCSR(s.id(st.TrustDomain), key)
	if err != nil {
		return key, Leaf{}, err
	}
	leaf, err := s.authority.ask(ctx, st.Active.External, csr, wanted{
		public: key.Signer().Public(), id: s.id(st.TrustDomain), lifetime: min(servingLifetime, st.leafLifetime),
	})
	return key, leaf, err
}

// take makes a leaf the certificate; the lock is held.
func (s *serving) take(key PrivateKey, leaf Leaf, signer *Signer, now time.Time) {
	cert := &tls.Certificate{PrivateKey: key.Signer(), Leaf: leaf.Chain[0]}
	for _, c := range leaf.Chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	s.cert, s.signer = cert, signer
	s.renewAt = now.Add(leaf.NotAfter.Sub(now) / 2)
}

func (s *serving) id(trustDomain string) string {
	return names.SPIFFEID(trustDomain, s.namespace, s.serviceAccount)
}
