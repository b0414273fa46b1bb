// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wake"
)

const (
	cart = "spiffe://cluster.local/ns/shop/sa/cart"
	pay  = "spiffe://cluster.local/ns/shop/sa/pay"
)

// operator signs in memory, for tests in fake time.
type operator struct {
	mu       sync.Mutex
	ca       *identity.Authority
	state    identity.State
	down     error
	refuse   map[string]bool
	asked    map[string]int
	inFlight int
	peak     int
	latency  time.Duration
	noFile   bool
}

func newOperator(t *testing.T, lifetime time.Duration) *operator {
	t.Helper()
	o := &operator{ca: identity.NewAuthority(nil), refuse: map[string]bool{}, asked: map[string]int{}}
	o.rotate(t, lifetime)
	return o
}

// rotate announces and, with a policy of no delay, uses a new root.
func (o *operator) rotate(t *testing.T, lifetime time.Duration) {
	t.Helper()
	root, err := identity.NewRoot("cluster.local", identity.DefaultRootLifetime, time.Now())
	require.NoError(t, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	for range 2 {
		o.state, _ = o.state.Step(identity.Observed{
			Signer: root, Published: o.state.Bundle(), TrustDomain: "cluster.local", LeafLifetime: lifetime,
		}, identity.Policy{Margin: time.Hour}, time.Now())
	}
	o.ca.Update(o.state)
}

func (o *operator) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *operator) Sign(ctx context.Context, csr []byte, id string, _ identity.Held) (Signed, error) {
	o.mu.Lock()
	o.asked[id]++
	o.inFlight++
	o.peak = max(o.peak, o.inFlight)
	down, refuse, latency := o.down, o.refuse[id], o.latency
	o.mu.Unlock()
	if latency > 0 {
		wake.After(ctx, latency)
	}
	defer o.set(func() { o.inFlight-- })
	switch {
	case down != nil:
		return Signed{}, down
	case refuse:
		return Signed{}, fmt.Errorf("%w: no pod", errRefused)
	}
	leaf, err := o.ca.Sign(ctx, csr, id)
	return Signed{Chain: leaf.PEM(), NotAfter: leaf.NotAfter, Bundle: o.ca.Bundle()}, err
}

func (o *operator) Bundle(_ context.Context, have int64) (identity.Bundle, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.ca.Bundle()
	return b, o.down == nil && b.Generation != have, o.down
}

func (o *operator) Trusted() (identity.Bundle, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.noFile {
		return identity.Bundle{}, errors.New("no file")
	}
	return o.ca.Bundle(), nil
}

func (o *operator) count(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[id]
}

// proxy is what an Envoy would hold.
type proxy struct {
	mu      sync.Mutex
	secrets map[string]*tlsv3.Secret
	order   []string
}

func (p *proxy) PublishSecrets(changed []*tlsv3.Secret, removed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range changed {
		if err := s.ValidateAll(); err != nil {
			panic(err)
		}
		p.secrets[s.GetName()] = s
		p.order = append(p.order, "+"+s.GetName())
	}
	for _, r := range removed {
		delete(p.secrets, r)
		p.order = append(p.order, "-"+r)
	}
}

func (p *proxy) get(name string) *tlsv3.Secret {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.secrets[name]
}

func (p *proxy) bundle(t *testing.T) identity.Bundle {
	t.Helper()
	s := p.get(names.TrustBundleSecret)
	require.NotNil(t, s)
	b, err := identity.ParseBundle(s.GetValidationContext().GetTrustedCa().GetInlineBytes())
	require.NoError(t, err)
	return b
}

// inFakeTime runs a started manager in a bubble and stops it at the end.
func inFakeTime(t *testing.T, lifetime time.Duration, f func(t *testing.T, m *Manager, o *operator, p *proxy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o, p := newOperator(t, lifetime), &proxy{secrets: map[string]*tlsv3.Secret{}}
		m := NewManager(o, p, logr.Discard())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Start(ctx) }()
		f(t, m, o, p)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestACertificateIsMadeAndRenewedEarly(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.NoError(t, m.Await(t.Context(), cart))
		first := p.get(cart)
		require.NotNil(t, first)
		chain, err := identity.ParseCertificates(first.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
		require.NoError(t, err)
		require.NoError(t, p.bundle(t).VerifyLeaf(chain, time.Now()))
		key, err := identity.ParsePrivateKey(first.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
		require.NoError(t, err)
		assert.True(t, key.Matches(chain[0]))
		st := m.statuses()
		require.Len(t, st, 1)
		assert.Equal(t, time.Hour, time.Until(st[0].notAfter).Round(time.Second))

		time.Sleep(30*time.Minute - time.Second)
		synctest.Wait()
		assert.Equal(t, 1, o.count(cart), "not before half of its life")
		time.Sleep(10*time.Minute + 2*time.Second)
		synctest.Wait()
		assert.Equal(t, 2, o.count(cart), "by two thirds of its life")
		assert.NotEqual(t, first.GetTlsCertificate().GetPrivateKey().GetInlineBytes(),
			p.get(cart).GetTlsCertificate().GetPrivateKey().GetInlineBytes(), "a new key each time")
	})
}

func TestTheBundleComesBeforeTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, p := newOperator(t, time.Hour), &proxy{secrets: map[string]*tlsv3.Secret{}}
		o.noFile = true
		m := NewManager(o, p, logr.Discard())
		require.NoError(t, m.Want(cart, identity.Pod{}), "may be wanted before Start")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Start(ctx) }()
		require.NoError(t, m.Await(t.Context(), cart))
		assert.Equal(t, []string{"+" + names.TrustBundleSecret, "+" + cart}, p.order)
		require.Error(t, m.Start(ctx), "only once")
		cancel()
		require.NoError(t, <-done)
	})
}

func TestAnAbsentOperatorStopsNothing(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.NoError(t, m.Await(t.Context(), cart))
		before := p.get(cart)
		o.set(func() { o.down = errors.New("connection refused") })
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		assert.Same(t, before, p.get(cart), "the certificate in use stays")
		assert.Contains(t, m.statuses()[0].error, "connection refused")
		assert.Equal(t, map[string]float64{"ready": 0, "failing": 1, "pending": 0}, identities(t, m))
		tries := o.count(cart)
		assert.Greater(t, tries, 10)
		assert.Less(t, tries, 120, "backed off")
		require.NoError(t, m.Await(t.Context(), cart), "it is valid still")
		time.Sleep(10 * time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, m.Await(ctx, cart), "connection refused", "it has expired")
		o.set(func() { o.down = nil })
		time.Sleep(retryMax * 5 / 4)
		synctest.Wait()
		require.NoError(t, m.Await(t.Context(), cart))
		assert.NotSame(t, before, p.get(cart))
		assert.Empty(t, m.statuses()[0].error)
	})
}

// identities is the metric fairway_agent_identities by state.
func identities(t *testing.T, m *Manager) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(m))
	families, err := r.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, v := range f.GetMetric() {
			if f.GetName() == "fairway_agent_identities" {
				out[v.GetLabel()[0].GetValue()] = v.GetGauge().GetValue()
			}
		}
	}
	return out
}

func TestARefusedIdentityIsTriedAgainAndHindersNoOther(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		o.set(func() { o.refuse[pay] = true })
		require.NoError(t, m.Want(pay, identity.Pod{}))
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.NoError(t, m.Await(t.Context(), cart))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, m.Await(ctx, pay), "no pod")
		o.set(func() { delete(o.refuse, pay) })
		require.NoError(t, m.Await(t.Context(), pay))
		assert.NotNil(t, p.get(pay))
		require.Error(t, m.Await(t.Context(), "spiffe://cluster.local/ns/a/sa/b"), "not wanted")
	})
}

func TestUnwantedIdentitiesAreDropped(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.NoError(t, m.Await(t.Context(), cart))
		m.Unwant(cart, identity.Pod{})
		assert.NotNil(t, p.get(cart), "another pod has it")
		m.Unwant(cart, identity.Pod{})
		m.Unwant(cart, identity.Pod{})
		time.Sleep(linger - time.Second)
		synctest.Wait()
		kept := p.get(cart)
		assert.NotNil(t, kept, "a proxy that restarts finds it again")
		require.NoError(t, m.Want(cart, identity.Pod{}))
		time.Sleep(2 * linger)
		synctest.Wait()
		assert.Same(t, kept, p.get(cart))
		m.Unwant(cart, identity.Pod{})
		time.Sleep(linger + time.Second)
		synctest.Wait()
		assert.Nil(t, p.get(cart))
		assert.Empty(t, m.statuses())
		n := o.count(cart)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, n, o.count(cart))

		// Dropped while its request is under way: nothing may be published afterwards.
		o.set(func() { o.latency = 10 * time.Second })
		require.NoError(t, m.Want(pay, identity.Pod{}))
		time.Sleep(time.Second)
		m.Unwant(pay, identity.Pod{})
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Nil(t, p.get(pay))

		// Wanted again while the former request is under way.
		require.NoError(t, m.Want(pay, identity.Pod{}))
		time.Sleep(time.Second)
		m.Unwant(pay, identity.Pod{})
		require.NoError(t, m.Want(pay, identity.Pod{}))
		require.NoError(t, m.Await(t.Context(), pay))
		assert.NotNil(t, p.get(pay))
	})
}

func TestAChangedBundleIsPushed(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		synctest.Wait()
		require.Len(t, p.bundle(t).Roots, 1)
		o.set(func() { o.noFile = true })
		o.rotate(t, time.Hour)
		time.Sleep(bundleAskEvery * 3 / 2)
		synctest.Wait()
		require.Len(t, p.bundle(t).Roots, 2)
		assert.Equal(t, m.currentBundle().Generation, o.ca.Bundle().Generation)

		older := o.ca.Bundle()
		older.Generation--
		older.Roots = older.Roots[:1]
		m.offer(older)
		require.Len(t, p.bundle(t).Roots, 2, "an older bundle doesn't replace a newer one")
	})
}

func TestManyIdentitiesAtOnce(t *testing.T) {
	inFakeTime(t, time.Hour, func(t *testing.T, m *Manager, o *operator, p *proxy) {
		o.set(func() { o.latency = 10 * time.Millisecond })
		for i := range 100 {
			require.NoError(t, m.Want(fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/s%d", i), identity.Pod{}))
		}
		for i := range 100 {
			require.NoError(t, m.Await(t.Context(), fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/s%d", i)))
		}
		assert.LessOrEqual(t, o.peak, maxSigning)
		renewals := map[time.Time]bool{}
		for _, s := range m.statuses() {
			renewals[s.renewAt.Truncate(time.Second)] = true
		}
		assert.Greater(t, len(renewals), 50, "renewals are spread")
	})
}

func TestIdentitiesAreBounded(t *testing.T) {
	m := NewManager(nil, nil, logr.Discard())
	for i := range maxIdentities {
		require.NoError(t, m.Want(fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/s%d", i), identity.Pod{}))
	}
	require.ErrorContains(t, m.Want(cart, identity.Pod{}), "more than")
}

// liar answers with a certificate that wasn't asked for.
type liar struct {
	*operator
	answer func(csr []byte, id string) (Signed, error)
}

func (l *liar) Sign(_ context.Context, csr []byte, id string, _ identity.Held) (Signed, error) {
	return l.answer(csr, id)
}

func TestAWrongAnswerIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, p := newOperator(t, time.Hour), &proxy{secrets: map[string]*tlsv3.Secret{}}
		sign := func(id string) (Signed, error) {
			key, err := identity.GenerateKey()
			require.NoError(t, err)
			csr, err := identity.NewCSR(id, key)
			require.NoError(t, err)
			return o.Sign(t.Context(), csr, id, identity.Held{})
		}
		for name, answer := range map[string]func([]byte, string) (Signed, error){
			"another key": func(_ []byte, id string) (Signed, error) { return sign(id) },
			"another ID":  func([]byte, string) (Signed, error) { return sign(pay) },
			"no PEM":      func([]byte, string) (Signed, error) { return Signed{Chain: []byte("x")}, nil },
		} {
			m := NewManager(&liar{o, answer}, p, logr.Discard())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			go m.Start(ctx)
			require.NoError(t, m.Want(cart, identity.Pod{}))
			require.ErrorContains(t, m.Await(ctx, cart), "the operator's certificate", name)
			cancel()
			assert.Nil(t, p.get(cart), name)
		}
		synctest.Wait()
	})
}
