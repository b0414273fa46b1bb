// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/spire"
	"github.com/fairway-mesh/fairway/internal/spire/spiretest"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// source tells what a test says.
type source struct {
	svid  chan func(func(identity.SVID, error))
	roots chan []*x509.Certificate
	pods  chan []identity.Pod
}

func newSource() *source {
	return &source{
		svid: make(chan func(func(identity.SVID, error))), roots: make(chan []*x509.Certificate),
		pods: make(chan []identity.Pod, 16),
	}
}

func (s *source) Follow(ctx context.Context, _ string, pods []identity.Pod, tell func(identity.SVID, error)) {
	s.pods <- pods
	for {
		select {
		case say := <-s.svid:
			say(tell)
		case <-ctx.Done():
			return
		}
	}
}

func (s *source) FollowBundle(ctx context.Context, tell func([]*x509.Certificate, error)) {
	for {
		select {
		case roots := <-s.roots:
			tell(roots, nil)
		case <-ctx.Done():
			return
		}
	}
}

func (s *source) give(svid identity.SVID, err error) {
	s.svid <- func(tell func(identity.SVID, error)) { tell(svid, err) }
	synctest.Wait()
}

// issued is what a CA would give for an identity.
func issued(t *testing.T, ca *testca.CA, id string) identity.SVID {
	t.Helper()
	cert := ca.Issue(id)
	s, err := x509svid.ParseRaw(cert.Certificate[0], pkcs8(t, cert))
	require.NoError(t, err)
	return identity.NewSVID(s)
}

func pkcs8(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	return der
}

func run(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// TestWhatIsGivenIsChecked: nothing is shown before its root is trusted, and what isn't used leaves what was there.
func TestWhatIsGivenIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := testca.New(t, "cluster.local"), testca.New(t, "cluster.local")
		s, p := newSource(), &proxy{secrets: map[string]*tlsv3.Secret{}}
		var told []*x509.Certificate
		m := NewGiven(s, p, func(r []*x509.Certificate) { told = r }, logr.Discard())
		require.NoError(t, m.Want(cart, identity.Pod{}))
		run(t, m)
		first := issued(t, ca, cart)
		s.give(first, nil)
		require.Nil(t, p.get(cart), "its root isn't known")
		s.roots <- []*x509.Certificate{ca.Certificate}
		synctest.Wait()
		require.Equal(t, []*x509.Certificate{ca.Certificate}, told)
		require.Equal(t, []string{"+" + names.TrustBundleSecret, "+" + cart}, p.order, "the roots go first")
		require.NoError(t, m.Await(t.Context(), cart))
		require.Empty(t, m.failing())

		held := p.get(cart)
		expired := *ca
		expired.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
		for name, bad := range map[string]identity.SVID{
			"another identity": issued(t, ca, pay), "another root": issued(t, other, cart), "expired": issued(t, &expired, cart),
			"another key": {Chain: first.Chain, Key: issued(t, ca, cart).Key},
		} {
			if name == "another key" {
				bad.Chain = issued(t, ca, cart).Chain
			}
			s.give(bad, nil)
			require.Same(t, held, p.get(cart), name)
			failing := m.failing()
			require.Len(t, failing, 1, name)
			require.Contains(t, failing[0].Reason, "isn't used", name)
			require.True(t, first.NotAfter().Equal(failing[0].NotAfter), name)
		}
		s.give(identity.SVID{}, errors.New("SPIRE is away"))
		require.Equal(t, "SPIRE is away", m.failing()[0].Reason)
		s.give(first, nil)
		require.Empty(t, m.failing(), "what it had is what it should have")

		s.give(issued(t, other, cart), nil)
		s.roots <- []*x509.Certificate{ca.Certificate, other.Certificate}
		synctest.Wait()
		require.Empty(t, m.failing(), "it is used once its root is there")
		require.NotSame(t, held, p.get(cart))

		time.Sleep(50 * time.Minute)
		require.Equal(t, identity.ErrOverdue.Error(), m.failing()[0].Reason)
		m.Unwant(cart, identity.Pod{})
		require.Empty(t, m.failing(), "nobody wants it")
	})
}

// TestPodsThatComeAreAskedFor: a source hears of each pod of an identity, and not again of one that it knows.
func TestPodsThatComeAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		m := NewGiven(s, &proxy{secrets: map[string]*tlsv3.Secret{}}, func([]*x509.Certificate) {}, logr.Discard())
		run(t, m)
		a, b := identity.Pod{UID: "1", Name: "a"}, identity.Pod{UID: "2", Name: "b"}
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.Empty(t, <-s.pods)
		require.NoError(t, m.Want(cart, a))
		require.Equal(t, []identity.Pod{a}, <-s.pods)
		require.NoError(t, m.Want(cart, a))
		require.NoError(t, m.Want(cart, b))
		require.Equal(t, []identity.Pod{a, b}, <-s.pods)
		m.Unwant(cart, a)
		m.Unwant(cart, a)
		synctest.Wait()
		require.Empty(t, s.pods)
	})
}

// TestIdentitiesOfSPIRE: stock Envoy serves with what a real SPIRE gives, lets SPIRE's identities in and nobody else;
// and while SPIRE is away, what there is holds, and it is told why and how long.
func TestIdentitiesOfSPIRE(t *testing.T) {
	xdstest.Binary(t) // or skip
	s := spiretest.Start(t)
	s.EntryOfDelegate()
	id := func(account string) string { return names.SPIFFEID(spiretest.TrustDomain, "shop", account) }
	s.Entry(id("cart"), 600, "k8s:ns:shop", "k8s:sa:cart")
	s.Entry(id("short"), 30, "k8s:pod-uid:short-1")
	delegate, err := spire.NewDelegate(s.Admin, spiretest.TrustDomain, "n1")
	require.NoError(t, err)
	p := &proxy{secrets: map[string]*tlsv3.Secret{}}
	m := NewGiven(delegate, p, func([]*x509.Certificate) {}, logr.Discard())
	run(t, m)
	require.NoError(t, m.Want(id("none"), identity.Pod{}))
	require.NoError(t, m.Want(id("cart"), identity.Pod{UID: "cart-1", Name: "cart-1"}))
	require.NoError(t, m.Want(id("short"), identity.Pod{UID: "short-1", Name: "short-1"}))
	await := func(id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), eventually.Patience)
		defer cancel()
		return m.Await(ctx, id)
	}
	require.NoError(t, await(id("cart")))
	require.NoError(t, await(id("short")))
	eventually.Passes(t, "that there is no entry is told", func(look require.TestingT) {
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorContains(look, m.Await(impatient, id("none")), "no registration entry")
	})

	secret := p.get(id("cart"))
	chain := secret.GetTlsCertificate().GetCertificateChain().GetInlineBytes()
	key, err := identity.ParsePrivateKey(secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
	require.NoError(t, err)
	served := &tlsv3.Secret{Name: pay, Type: secret.GetType()}
	addr := startEnvoy(t, served, p.get(names.TrustBundleSecret))
	got, err := call(t, addr, chain, key, m.currentBundle())
	require.NoError(t, err)
	require.Equal(t, "hello", got)
	strange, strangeKey := leafOf(t, newCA(t, nil), cart)
	_, err = call(t, addr, strange, strangeKey, m.currentBundle())
	require.Error(t, err)

	s.StopServer()
	reason := func(id string) string {
		for _, f := range m.failing() {
			if f.Identity == id {
				require.False(t, f.NotAfter.IsZero())
				return f.Reason
			}
		}
		return ""
	}
	eventually.True(t, "what SPIRE doesn't renew is told", func() bool {
		return reason(id("short")) == identity.ErrOverdue.Error()
	})
	require.Empty(t, reason(id("cart")))
	s.StopAgent()
	eventually.True(t, "that SPIRE's agent is away is told", func() bool { return reason(id("cart")) != "" })
	require.Same(t, secret, p.get(id("cart")))
	require.NoError(t, await(id("cart")))
}

// TestWhatFailsIsReported again and again while it does, and once that nothing does any more; a report that doesn't
// arrive is made again.
func TestWhatFailsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		m := NewGiven(s, &proxy{secrets: map[string]*tlsv3.Secret{}}, func([]*x509.Certificate) {}, logr.Discard())
		run(t, m)
		var reports [][]identity.Failing
		var away error
		go m.Report(t.Context(), func(_ context.Context, f []identity.Failing) error {
			reports = append(reports, f)
			return away
		})
		rounds := func(n int) [][]identity.Failing {
			reports = nil
			time.Sleep(time.Duration(n) * reportEvery)
			synctest.Wait()
			return reports
		}
		require.NoError(t, m.Want(cart, identity.Pod{}))
		require.Empty(t, rounds(3), "nothing fails")
		s.give(identity.SVID{}, errors.New("no entry"))
		said := rounds(2)
		require.Len(t, said, 2)
		require.Equal(t, cart, said[0][0].Identity)
		require.Equal(t, said[0], said[1])

		ca := testca.New(t, "cluster.local")
		s.roots <- []*x509.Certificate{ca.Certificate}
		s.give(issued(t, ca, cart), nil)
		away = errors.New("the operator is away")
		require.Equal(t, [][]identity.Failing{nil, nil}, rounds(2))
		away = nil
		require.Equal(t, [][]identity.Failing{nil}, rounds(3))
	})
}
