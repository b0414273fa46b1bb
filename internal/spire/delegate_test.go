// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package spire

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/spire/spiretest"
)

func id(namespace, account string) string {
	return names.SPIFFEID(spiretest.TrustDomain, namespace, account)
}

// heard is what was told last.
type heard[T any] struct {
	mu    sync.Mutex
	given T
	err   error
	count int
}

func (h *heard[T]) tell(given T, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err = err; err == nil {
		h.given = given
		h.count++
	}
}

func (h *heard[T]) last() (given T, count int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.given, h.count, h.err
}

func (h *heard[T]) awaitError(t *testing.T, text string) {
	t.Helper()
	eventually.True(t, "error: "+text, func() bool {
		_, _, err := h.last()
		return err != nil && contains(err, text)
	})
}

func (h *heard[T]) await(t *testing.T, what string, ok func(T) bool) (given T) {
	t.Helper()
	eventually.True(t, what, func() bool {
		var count int
		var err error
		given, count, err = h.last()
		return err == nil && count > 0 && ok(given)
	})
	return given
}

type follower interface {
	Follow(ctx context.Context, id string, pods []identity.Pod, tell func(identity.SVID, error))
	FollowBundle(ctx context.Context, tell func([]*x509.Certificate, error))
}

func follow(t *testing.T, from follower, id string, pods ...identity.Pod) *heard[identity.SVID] {
	t.Helper()
	h := &heard[identity.SVID]{}
	background(t, func(ctx context.Context) { from.Follow(ctx, id, pods, h.tell) })
	return h
}

func followBundle(t *testing.T, from follower) *heard[[]*x509.Certificate] {
	t.Helper()
	h := &heard[[]*x509.Certificate]{}
	background(t, func(ctx context.Context) { from.FollowBundle(ctx, h.tell) })
	return h
}

// background runs until the test ends.
func background(t *testing.T, run func(context.Context)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

func some(identity.SVID) bool { return true }

func delegate(t *testing.T, s *spiretest.SPIRE) *Delegate {
	t.Helper()
	d, err := NewDelegate(s.Admin, spiretest.TrustDomain, "n1")
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestDelegate asks a real agent of SPIRE for identities of pods: those that SPIRE has registered for what is true of
// them, and none for anybody else.
func TestDelegate(t *testing.T) {
	t.Parallel()
	s := spiretest.Start(t)
	d := delegate(t, s)
	bundle := followBundle(t, d)
	cart := follow(t, d, id("shop", "cart"))
	cart.awaitError(t, "authorized_delegates")
	bundle.awaitError(t, "authorized_delegates")

	s.EntryOfDelegate()
	cart.awaitError(t, "no registration entry")
	roots := bundle.await(t, "the roots", func(r []*x509.Certificate) bool { return len(r) == 1 })

	s.Entry(id("shop", "cart"), 600, "k8s:ns:shop", "k8s:sa:cart")
	got := cart.await(t, "cart's identity", some)
	require.NoError(t, got.Check(id("shop", "cart"), identity.Bundle{Roots: roots}, time.Now()))

	t.Run("entries of a pod", func(t *testing.T) { // as SPIRE's controller manager makes them
		s.Entry(id("shop", "pay"), 600, "k8s:pod-uid:uid-1")
		follow(t, d, id("shop", "pay")).awaitError(t, "no registration entry")
		follow(t, d, id("shop", "pay"), identity.Pod{UID: "uid-2", Name: "pay-2"}).awaitError(t, "no registration entry")
		follow(t, d, id("shop", "pay"), identity.Pod{UID: "uid-1", Name: "pay-1"}, identity.Pod{UID: "uid-2", Name: "pay-2"}).
			await(t, "pay's identity", some)
	})
	t.Run("another identity is refused", func(t *testing.T) {
		s.Entry("spiffe://"+spiretest.TrustDomain+"/web/front", 600, "k8s:ns:web", "k8s:sa:front")
		s.Entry(id("shop", "cart"), 600, "k8s:ns:web", "k8s:sa:front")
		follow(t, d, id("web", "front")).awaitError(t, "which is refused")
	})
	t.Run("more than the one asked for", func(t *testing.T) {
		s.Entry(id("shop", "all"), 600, "k8s:ns:shop")
		again := follow(t, d, id("shop", "cart")).await(t, "cart's identity", some)
		require.Equal(t, id("shop", "cart"), again.ID())
	})
	t.Run("the roots of others are no roots here", func(t *testing.T) {
		s.Federate("partner.example")
		s.Entry(id("shop", "abroad"), 600, "k8s:ns:shop", "k8s:sa:abroad", "-federatesWith", "spiffe://partner.example")
		follow(t, d, id("shop", "abroad")).await(t, "the identity", some)
		now, _, err := bundle.last()
		require.NoError(t, err)
		require.Equal(t, roots, now)
	})
	t.Run("another trust domain", func(t *testing.T) {
		other, err := NewDelegate(s.Admin, "else.example", "n1")
		require.NoError(t, err)
		followBundle(t, other).awaitError(t, "another trust domain")
		follow(t, other, "spiffe://else.example/ns/shop/sa/cart").awaitError(t, "which is refused")
	})
	t.Run("no identity of a service account", func(t *testing.T) {
		follow(t, d, "spiffe://"+spiretest.TrustDomain+"/web").awaitError(t, "no identity of a service account")
	})
}

// TestRenewals: SPIRE renews, and rotates its root; an agent of SPIRE's that restarts is asked again, and says what it
// said before.
func TestRenewals(t *testing.T) {
	t.Parallel()
	s := spiretest.Start(t)
	d := delegate(t, s)
	s.EntryOfDelegate()
	s.Entry(id("shop", "cart"), 12, "k8s:ns:shop", "k8s:sa:cart")
	bundle, cart := followBundle(t, d), follow(t, d, id("shop", "cart"))
	first := cart.await(t, "cart's identity", some)
	second := cart.await(t, "a renewal", func(g identity.SVID) bool { return !g.Same(first) })
	require.True(t, second.NotAfter().After(first.NotAfter()))

	before := bundle.await(t, "the root", func(r []*x509.Certificate) bool { return len(r) == 1 })
	s.Server("localauthority", "x509", "prepare")
	both := bundle.await(t, "both roots", func(r []*x509.Certificate) bool { return len(r) == 2 })
	require.Contains(t, both, before[0])
	s.Server("localauthority", "x509", "activate", "-authorityID", s.Prepared())
	cart.await(t, "an identity under the new root", func(g identity.SVID) bool {
		return g.Check(id("shop", "cart"), identity.Bundle{Roots: without(both, before[0])}, time.Now()) == nil
	})

	s.StopAgent()
	cart.awaitError(t, s.Admin)
	s.StartAgent()
	cart.await(t, "an identity of the agent that is back", some)
}

// TestNoSocket says what is missing where SPIRE's agent is, and finds it once it is there.
func TestNoSocket(t *testing.T) {
	t.Parallel()
	s := spiretest.Start(t)
	s.EntryOfDelegate()
	s.Entry(id("shop", "cart"), 600, "k8s:ns:shop", "k8s:sa:cart")
	s.StopAgent()
	s.RemoveSockets()
	cart := follow(t, delegate(t, s), id("shop", "cart"))
	cart.awaitError(t, "there is no socket of a SPIRE agent at "+s.Admin)
	s.StartAgent()
	cart.await(t, "cart's identity", some)
}

func without(roots []*x509.Certificate, gone *x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(roots), gone.Equal)
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }
