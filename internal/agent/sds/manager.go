// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"

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
}

// Manager holds the certificates of one proxy. Make it with NewManager and run it with Start; all methods are safe for
// concurrent use.
type Manager struct {
	authority Authority
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
	m.watchBundle(ctx)
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}

// Want asks for a certificate of a SPIFFE ID, and for its renewal until Unwant was called as often as Want. It returns
// at once; see Await.
func (m *Manager) Want(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.identities[id]; ok {
		e.wanted++
		if e.drop != nil {
			e.drop.Stop()
			e.drop = nil
		}
		return nil
	}
	if len(m.identities) >= maxIdentities {
		return fmt.Errorf("more than %d identities on one proxy; %.300q is not served", maxIdentities, id)
	}
	e := &entry{id: id, wanted: 1, changed: make(chan struct{}), status: status{id: id}}
	m.identities[id] = e
	if m.ctx != nil {
		m.launch(e)
	}
	return nil
}

// Unwant takes one Want back. After the last one the key is forgotten and the proxy's secret removed: a while later if
// there is a certificate, else at once.
func (m *Manager) Unwant(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.identities[id]
	if !ok || e.wanted == 0 {
		return
	}
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
	out := make([]status, 0, len(m.identities))
	for _, e := range m.identities {
		out = append(out, e.status)
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
	m.wg.Go(func() { m.maintain(ctx, e) })
}

// maintain fetches and renews one identity until it is no longer wanted.
func (m *Manager) maintain(ctx context.Context, e *entry) {
	fresh := wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.5, Cap: retryMax, Steps: math.MaxInt}
	retry := fresh
	for {
		pause, err := m.refresh(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause = retry.Step()
			m.log.Info("no certificate, trying again", "identity", e.id, "in", pause.String(), "reason", err.Error())
		} else {
			retry = fresh
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// refresh gets a certificate with a new key, publishes it, and returns the time until it should be renewed.
func (m *Manager) refresh(ctx context.Context, e *entry) (time.Duration, error) {
	m.mu.Lock()
	held := identity.Held{NotAfter: e.status.notAfter, FailingSince: e.status.failing}
	m.mu.Unlock()
	key, signed, err := m.request(ctx, e.id, held)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identities[e.id] != e { // no longer wanted; a secret published now would never be removed
		return 0, context.Canceled
	}
	defer func() {
		close(e.changed)
		e.changed = make(chan struct{})
	}()
	var secret *tlsv3.Secret
	if err == nil {
		secret, err = certificateSecret(e.id, signed.Chain, key)
	}
	if err != nil {
		e.status.error = err.Error()
		if e.status.failing.IsZero() {
			e.status.failing = time.Now()
		}
		return 0, err
	}
	now := time.Now()
	renew := renewalDelay(signed.NotAfter.Sub(now))
	e.status = status{id: e.id, notAfter: signed.NotAfter, renewAt: now.Add(renew)}
	// The bundle goes first: peers with a certificate of the same new CA must be trusted before this one is shown.
	m.publisher.PublishSecrets(append(m.adopt(signed.Bundle), secret), nil)
	return renew, nil
}

func (m *Manager) request(
	ctx context.Context, id string, held identity.Held,
) (identity.PrivateKey, Signed, error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return identity.PrivateKey{}, Signed{}, ctx.Err()
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return key, Signed{}, err
	}
	csr, err := identity.NewCSR(id, key)
	if err != nil {
		return key, Signed{}, err
	}
	signed, err := m.authority.Sign(ctx, csr, id, held)
	if err != nil {
		return key, Signed{}, err
	}
	signed.NotAfter, err = check(id, key, signed)
	return key, signed, err
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

// watchBundle follows the bundle's file and the operator's answer.
func (m *Manager) watchBundle(ctx context.Context) {
	askAt := time.Now().Add(wait.Jitter(bundleAskEvery, 0.25))
	for {
		if b, err := m.authority.Trusted(); err == nil {
			m.offer(b)
		} else if len(m.currentBundle().Roots) == 0 {
			m.log.Info("no trust bundle yet", "reason", err.Error())
		}
		if now := time.Now(); !now.Before(askAt) {
			askAt = now.Add(wait.Jitter(bundleAskEvery, 0.25))
			if b, fresh, err := m.authority.Bundle(ctx, m.currentBundle().Generation); err == nil && fresh {
				m.offer(b)
			} else if err != nil && ctx.Err() == nil {
				m.log.V(1).Info("the operator doesn't give its trust bundle", "reason", err.Error())
			}
		}
		if !sleep(ctx, bundleFileEvery) {
			return
		}
	}
}

// renewalDelay is a random time between half and two thirds of the rest of a certificate's life, so that certificates
// of pods that started together aren't renewed together.
func renewalDelay(life time.Duration) time.Duration {
	if life <= 0 {
		return retryMax // the clock is wrong, here or there; don't hammer the operator
	}
	return life/2 + rand.N(life/6+1) //nolint:gosec // it spreads load
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
