// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Authority signs with the newest State it was given. Every replica has one; it is safe for concurrent use.
type Authority struct {
	now   func() time.Time
	state atomic.Pointer[State]
	// outside gives identities instead of the state; nil where it doesn't.
	outside atomic.Pointer[Outside]
	// external has certificates signed where an External is the CA; nil where none can be.
	external ExternalIssuer
	// life is for as long as the operator's own certificates are asked for: the context of no request, since others may
	// wait for the same answer.
	life context.Context
	// renewals is told when the operator's own certificates can't be renewed.
	renewals *Renewals

	signed atomic.Uint64

	mu sync.Mutex
	// servings are the operator's own certificates.
	servings []*serving
}

// NewAuthority makes an authority that refuses with ErrNotReady until Update. now is time.Now unless a test says else.
func NewAuthority(now func() time.Time) *Authority {
	if now == nil {
		now = time.Now
	}
	return &Authority{now: now}
}

// Delegate names who asks external CAs, and who is told when one gives the operator no certificate of its own, which is
// asked for while the context lives. It is called once, before the authority is used.
func (a *Authority) Delegate(ctx context.Context, to ExternalIssuer, tell *Renewals) {
	a.life, a.external, a.renewals = ctx, to, tell
}

// TrustDomain is the domain of every identity it signs; empty while there is no CA.
func (a *Authority) TrustDomain() string {
	if o := a.from(); o != nil {
		return o.TrustDomain()
	}
	if s := a.state.Load(); s != nil {
		return s.TrustDomain
	}
	return ""
}

// Update replaces the state.
func (a *Authority) Update(s State) { a.state.Store(&s) }

// Ready is nil when the authority can sign now, and else says why not. With an external CA it takes that the operator
// has a certificate of its own, so that a replica that can't have one doesn't replace one that has. It never waits.
func (a *Authority) Ready() error {
	if o := a.from(); o != nil {
		if err := a.outsideReady(o); err != nil {
			return fmt.Errorf("the operator has no identity of its own yet: %w", err)
		}
		return nil
	}
	s := a.state.Load()
	switch {
	case s == nil || s.Active == nil:
		return errors.New("the mesh has no CA yet: the leader makes it, or cert-manager hasn't issued it; see the Mesh's " +
			"conditions")
	case !s.Active.Usable(a.now()):
		return errors.New("the mesh's CA has expired or isn't valid yet; see the Mesh's conditions")
	}
	if s.Active.External == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, own := range a.servings {
		if err := own.ready(); err != nil {
			return fmt.Errorf("the operator has no certificate of its own yet: %w", err)
		}
	}
	return nil
}

// Bundle is the current trust bundle; empty while there is no CA.
func (a *Authority) Bundle() Bundle {
	if o := a.from(); o != nil {
		return o.Bundle()
	}
	if s := a.state.Load(); s != nil {
		return s.Bundle()
	}
	return Bundle{}
}

// Sign issues a leaf for a SPIFFE ID from a PEM request. It checks the request (ErrBadRequest), not the right to make
// it. ErrNotReady: there is no CA to sign with now. IssueError: an external CA signs, and did not. Only where one signs
// does it wait.
func (a *Authority) Sign(ctx context.Context, csr []byte, id string) (Leaf, error) {
	leaf, err := a.sign(ctx, csr, id)
	if err != nil {
		return Leaf{}, err
	}
	a.signed.Add(1)
	return leaf, nil
}

func (a *Authority) sign(ctx context.Context, csr []byte, id string) (Leaf, error) {
	if a.from() != nil {
		return Leaf{}, badRequest("the identities of this mesh are SPIRE's to give, and nothing is signed here")
	}
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
	if s.Active.External != nil {
		return a.ask(ctx, s.Active.External, csr, wanted{public: public, id: id, lifetime: s.leafLifetime})
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

// ask has an external CA sign, and checks what it signed.
func (a *Authority) ask(ctx context.Context, e *External, csr []byte, w wanted) (Leaf, error) {
	if a.external == nil {
		return Leaf{}, ErrNotReady
	}
	w.anchors = e.Anchors
	answer, err := a.external.Issue(ctx, ExternalRequest{Issuer: e.Issuer, Identity: w.id, CSR: csr, Lifetime: w.lifetime})
	if err != nil {
		return Leaf{}, err
	}
	return w.check(answer, a.now())
}

// Probe has an external CA sign a certificate for a SPIFFE ID, with a key that is thrown away: whether it does what is
// asked is known before anything depends on it.
func (a *Authority) Probe(ctx context.Context, s *Signer, id string, lifetime time.Duration) error {
	key, err := GenerateKey()
	if err != nil {
		return err
	}
	csr, err := NewCSR(id, key)
	if err != nil {
		return err
	}
	_, err = a.ask(ctx, s.External, csr, wanted{public: key.Signer().Public(), id: id, lifetime: lifetime})
	return err
}
