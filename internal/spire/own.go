// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package spire

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/identity"
)

// lookEvery is how often it is looked at whether SPIRE is late with a renewal.
const lookEvery = time.Minute

// Own keeps the identity of this process, and the trust bundle, as SPIRE gives them. It is safe for concurrent use.
type Own struct {
	id, trustDomain string
	from            *Workload
	// changed is told of everything new, failed of each failure, with what there is all the same.
	changed func()
	failed  func(identity.Held, error)

	mu     sync.Mutex
	roots  []*x509.Certificate
	number int64 // of the roots
	newest identity.SVID
	held   identity.SVID
	// wrong is why there is no newer identity, unknown why there are no newer roots; nil if nothing is wrong.
	wrong, unknown error
	since          time.Time
	// told is how it stood the last time.
	told string
}

// NewOwn is an Own that has nothing before Run. id is the only identity that is taken.
func NewOwn(from *Workload, trustDomain, id string, changed func(), failed func(identity.Held, error)) *Own {
	return &Own{from: from, trustDomain: trustDomain, id: id, changed: changed, failed: failed}
}

// Run follows SPIRE until the context ends.
func (o *Own) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() {
		o.from.Follow(ctx, o.id, nil, func(s identity.SVID, err error) {
			o.update(func() {
				if o.wrong = err; err == nil {
					o.newest = s
				}
			})
		})
	})
	all.Go(func() {
		o.from.FollowBundle(ctx, func(roots []*x509.Certificate, err error) {
			o.update(func() {
				if o.unknown = err; err == nil && !slices.EqualFunc(roots, o.roots, (*x509.Certificate).Equal) {
					o.roots, o.number = roots, max(o.number+1, time.Now().Unix())
				}
			})
		})
	})
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.update(func() {})
		case <-ctx.Done():
			all.Wait()
			return
		}
	}
}

// update takes something in, and tells what becomes of it.
func (o *Own) update(take func()) {
	now := time.Now()
	o.mu.Lock()
	before := o.told
	take()
	o.settle(now)
	held, err := o.state(now)
	o.told = fmt.Sprint(held, err, o.number)
	news := o.told != before
	o.mu.Unlock()
	o.failed(held, err)
	if news {
		o.changed()
	}
}

// settle holds the newest identity once the roots that it leads to are there; the lock is held.
func (o *Own) settle(now time.Time) {
	if len(o.newest.Chain) == 0 || len(o.roots) == 0 || o.newest.Same(o.held) {
		return
	}
	if err := o.newest.Check(o.id, o.bundle(), now); err != nil {
		o.wrong = fmt.Errorf("the identity that SPIRE gives isn't used: %w", err)
		return
	}
	o.held, o.wrong = o.newest, nil
}

// state is what is held, and what keeps it from being renewed; the lock is held.
func (o *Own) state(now time.Time) (identity.Held, error) {
	var held identity.Held
	err := cmp.Or(o.wrong, o.unknown)
	if len(o.held.Chain) > 0 {
		held.NotAfter = o.held.NotAfter()
		if err == nil && now.After(o.held.Overdue()) {
			err = identity.ErrOverdue
		}
	}
	if err == nil {
		o.since = time.Time{}
		return held, nil
	}
	if o.since.IsZero() {
		o.since = now
	}
	held.FailingSince = o.since
	return held, err
}

// TrustDomain implements identity.Outside.
func (o *Own) TrustDomain() string { return o.trustDomain }

// Bundle implements identity.Outside: the newest roots; none before SPIRE gave some.
func (o *Own) Bundle() identity.Bundle {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bundle()
}

func (o *Own) bundle() identity.Bundle { return identity.Bundle{Generation: o.number, Roots: o.roots} }

// Certificate implements identity.Outside.
func (o *Own) Certificate(id string) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case id != o.id:
		return nil, fmt.Errorf("the operator is %s, and asks SPIRE for no other identity, such as %s", o.id, id)
	case len(o.held.Chain) > 0 && time.Now().Before(o.held.NotAfter()):
		return o.held.TLS(), nil
	}
	return nil, cmp.Or(o.wrong, o.unknown, errors.New("SPIRE's agent has not answered yet"))
}
