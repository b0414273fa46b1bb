// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/identity"
)

const (
	// maxIdentities bounds what a proxy can make the agent hold: more than the service accounts of a full node.
	maxIdentities = 4096
	// maxSigning bounds signing requests under way at once.
	maxSigning = 8
	// firstRetry and retryMax bound the wait after a failure, which doubles in between. The first is short, since the
	// operator may learn of a new pod a moment after the agent did.
	firstRetry = 100 * time.Millisecond
	retryMax   = 30 * time.Second
	// bundleFileEvery and bundleAskEvery are how often the bundle's file is read and the operator asked for a newer one.
	// identity.DefaultPolicy.Propagation counts on both.
	bundleFileEvery = 5 * time.Second
	bundleAskEvery  = 30 * time.Second
	// linger is how long a certificate is kept that nobody wants: a proxy that restarts, or the next pod of a rollout,
	// finds it again even if the operator is away.
	linger = 2 * time.Minute
)

// Authority signs and knows the trust bundle; Client is one.
type Authority interface {
	Sign(ctx context.Context, csr []byte, id string, held identity.Held) (Signed, error)
	// Bundle is the operator's bundle, if it isn't of the generation that the caller has.
	Bundle(ctx context.Context, have int64) (b identity.Bundle, fresh bool, err error)
	// Trusted is the newest bundle known without asking the operator.
	Trusted() (identity.Bundle, error)
}

// Source gives identities with their keys and renews them by itself; those of package spire are ones. Both methods tell
// what is given and why nothing is, one call after the other, until the context ends.
type Source interface {
	// Follow follows one identity. Pods are those of this proxy's node that have it, as far as that is known.
	Follow(ctx context.Context, id string, pods []identity.Pod, tell func(identity.SVID, error))
	// FollowBundle follows the roots that are to be trusted.
	FollowBundle(ctx context.Context, tell func([]*x509.Certificate, error))
}

// Publisher takes secrets for the proxy: new and changed ones in order, and names of those that are gone. It must not
// block for long, and not call the Manager nor wait for someone who does: the Manager's lock is held.
type Publisher interface {
	PublishSecrets(changed []*tlsv3.Secret, removed []string)
}

// status is one identity as it stands, without its key.
type status struct {
	id string
	// notAfter and renewAt are zero until there is a certificate.
	notAfter time.Time
	renewAt  time.Time
	// error is why the last attempt failed, failing since when all have; empty if it didn't.
	error   string
	failing time.Time
	// wanted: somebody wants it still.
	wanted bool
}

// fail notes that an attempt failed.
func (s *status) fail(err error) {
	s.error = err.Error()
	if s.failing.IsZero() {
		s.failing = time.Now()
	}
}

// Manager holds the certificates of one proxy. Make it with NewManager and run it with Start; all methods are safe for
// concurrent use.
type Manager struct {
	authority Authority
	// source gives identities instead of the authority; nil if it doesn't.
	source    Source
	told      func([]*x509.Certificate) // of source's roots
	publisher Publisher
	log       logr.Logger
	slots     chan struct{}

	mu         sync.Mutex
	ctx        context.Context // of Start; nil before
	stopped    bool            // no loop may be started any more
	identities map[string]*entry
	bundle     identity.Bundle
	wg         sync.WaitGroup
}

// entry is one wanted identity.
type entry struct {
	id      string
	wanted  int         // Want minus Unwant
	drop    *time.Timer // runs while wanted is 0
	cancel  context.CancelFunc
	changed chan struct{} // closed and replaced with each attempt that ends
	status  status
	// pods have the identity. What follows is of those that a Source gives: again makes it ask for other pods, given was
	// given last, and used is what the proxy has.
	pods        map[identity.Pod]int
	again       chan struct{}
	given, used identity.SVID
}

// NewManager makes a manager that does nothing before Start.
func NewManager(a Authority, p Publisher, log logr.Logger) *Manager {
	return &Manager{
		authority: a, publisher: p, log: log,
		slots:      make(chan struct{}, maxSigning),
		identities: map[string]*entry{},
	}
}

// Start keeps certificates and bundle fresh until the context ends. What was wanted before is fetched now.
func (m *Manager) Start(ctx context.Context) error {
	m.mu.Lock()
	if m.ctx != nil {
		m.mu.Unlock()
		return errors.New("the certificate manager was started already")
	}
	m.ctx = ctx
	for _, e := range m.identities {
		m.launch(e) //nolint:contextcheck // it takes m.ctx, set above
	}
	m.mu.Unlock()
	if m.source != nil {
		m.followBundle(ctx)
	} else {
		m.watchBundle(ctx)
	}
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}

// Want asks for a certificate of a SPIFFE ID, and for its renewal until Unwant was called as often as Want. The pod is
// one that has it, or nobody in particular. It returns at once; see Await.
func (m *Manager) Want(id string, pod identity.Pod) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.identities[id]; ok {
		e.wanted++
		e.add(pod)
		if e.drop != nil {
			e.drop.Stop()
			e.drop = nil
		}
		return nil
	}
	if len(m.identities) >= maxIdentities {
		return fmt.Errorf("more than %d identities on one proxy; %.300q is not served", maxIdentities, id)
	}
	e := &entry{
		id: id, wanted: 1, changed: make(chan struct{}), status: status{id: id},
		pods: map[identity.Pod]int{}, again: make(chan struct{}, 1),
	}
	e.add(pod)
	m.identities[id] = e
	if m.ctx != nil {
		m.launch(e)
	}
	return nil
}

// Unwant takes one Want back. After the last one the key is forgotten and the proxy's secret removed: a while later if
// there is a certificate, else at once.
func (m *Manager) Unwant(id string, pod identity.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.identities[id]
	if !ok || e.wanted == 0 {
		return
	}
	e.remove(pod)
	if e.wanted--; e.wanted > 0 {
		return
	}
	if e.status.notAfter.IsZero() {
		m.forget(e)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(linger, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.drop == timer { // else it was wanted again just now
			m.forget(e)
		}
	})
	e.drop = timer
}

// tell wakes who waits for something new of the identity; the manager's lock is held.
func (e *entry) tell() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// forget ends an identity; the lock is held.
func (m *Manager) forget(e *entry) {
	if m.identities[e.id] != e {
		return
	}
	delete(m.identities, e.id)
	close(e.changed)
	if e.cancel != nil {
		e.cancel()
	}
	if !e.status.notAfter.IsZero() {
		m.publisher.PublishSecrets(nil, []string{e.id})
	}
}

// Await waits until a wanted identity has a certificate that has not expired. If the context ends first, the error is
// that of the last attempt.
func (m *Manager) Await(ctx context.Context, id string) error {
	for {
		m.mu.Lock()
		e, ok := m.identities[id]
		if !ok {
			m.mu.Unlock()
			return fmt.Errorf("identity %.300q isn't wanted", id)
		}
		st, changed := e.status, e.changed
		m.mu.Unlock()
		if time.Now().Before(st.notAfter) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if st.error != "" {
				return fmt.Errorf("no certificate for %s: %s", id, st.error)
			}
			return fmt.Errorf("no certificate for %s yet: %w", id, ctx.Err())
		}
	}
}

// statuses tells how every wanted identity stands, sorted.
func (m *Manager) statuses() []status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, out := time.Now(), make([]status, 0, len(m.identities))
	for _, e := range m.identities {
		st := e.status
		st.wanted = e.wanted > 0
		if st.error == "" && m.source != nil && !st.renewAt.IsZero() && now.After(st.renewAt) {
			st.error, st.failing = identity.ErrOverdue.Error(), st.renewAt
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b status) int { return strings.Compare(a.id, b.id) })
	return out
}

// currentBundle is the trust bundle that the proxy has.
func (m *Manager) currentBundle() identity.Bundle {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bundle
}

// launch starts an identity's loop; the lock is held.
func (m *Manager) launch(e *entry) {
	if m.stopped {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	e.cancel = cancel
	if m.source != nil {
		m.wg.Go(func() { m.follow(ctx, e) })
		return
	}
	m.wg.Go(func() { m.maintain(ctx, e) })
}

// adopt takes a bundle over if it is newer, and returns what must be published; the lock is held.
func (m *Manager) adopt(b identity.Bundle) []*tlsv3.Secret {
	if len(b.Roots) == 0 || len(m.bundle.Roots) > 0 && b.Generation < m.bundle.Generation || b.Equal(m.bundle) {
		return nil
	}
	m.bundle = b
	return []*tlsv3.Secret{bundleSecret(b)}
}

func (m *Manager) offer(b identity.Bundle) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if changed := m.adopt(b); changed != nil {
		m.log.Info("trust bundle changed", "generation", b.Generation, "roots", len(b.Roots))
		m.publisher.PublishSecrets(changed, nil)
	}
}
