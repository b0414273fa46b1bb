// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExternalSurvivesARestart(t *testing.T) {
	ref := IssuerRef{Name: "corp", Kind: "ClusterIssuer", Group: "cert-manager.io"}
	a, b := newRoot(t, DefaultRootLifetime, testNow), newRoot(t, DefaultRootLifetime, testNow)
	external := func(roots ...*x509.Certificate) *Signer {
		s, err := NewExternal(ref, EncodeCertificates(roots), testNow)
		require.NoError(t, err)
		return s
	}
	s, _ := State{}.Step(Observed{
		Signer: external(a.Root), TrustDomain: testDomain, LeafLifetime: time.Hour,
	}, testPolicy, testNow)
	s, _ = s.Step(Observed{Signer: external(a.Root, b.Root), Published: s.Bundle()}, testPolicy, testNow)
	require.NotNil(t, s.Next)
	data, err := s.Encode()
	require.NoError(t, err)
	require.NotContains(t, data, keyKey, "there is no key")
	again, err := DecodeState(data)
	require.NoError(t, err)
	require.True(t, again.Active.Same(s.Active))
	require.True(t, again.Next.Same(s.Next))
	require.Equal(t, s.Active.Origin, again.Active.Origin)

	data[keyBundle] = Bundle{Roots: []*x509.Certificate{a.Root}}.PEM()
	_, err = DecodeState(data)
	require.ErrorContains(t, err, "isn't in")
}

// TestARootOfAnIssuerIsAnnouncedFirst: leaves under a root that was added are refused until every proxy trusts it, and
// one that was taken away stays trusted while its leaves live.
func TestARootOfAnIssuerIsAnnouncedFirst(t *testing.T) {
	now := testNow
	ref := IssuerRef{Name: "corp", Kind: "ClusterIssuer", Group: "cert-manager.io"}
	former, later := newRoot(t, DefaultRootLifetime, now), newRoot(t, DefaultRootLifetime, now)
	clock := func() time.Time { return now }
	issuer, a := &fakeIssuer{t: t, ca: former, now: clock}, NewAuthority(clock)
	a.Delegate(t.Context(), issuer, nil)
	var s State
	step := func(roots ...*x509.Certificate) {
		signer, err := NewExternal(ref, EncodeCertificates(roots), now)
		require.NoError(t, err)
		for range 2 {
			s, _ = s.Step(Observed{
				Signer: signer, Published: s.Bundle(), TrustDomain: testDomain, LeafLifetime: time.Hour,
			}, testPolicy, now)
		}
		a.Update(s)
	}
	step(former.Root)
	require.NoError(t, sign(t, a))
	issuer.ca = later
	require.ErrorContains(t, sign(t, a), "doesn't lead to a root")
	step(former.Root, later.Root)
	require.True(t, s.Bundle().Has(later.Root))
	require.ErrorContains(t, sign(t, a), "doesn't lead to a root", "it was announced a moment ago")
	at, known := s.NextSignsFrom(testPolicy)
	require.True(t, known)
	now = at
	step(former.Root, later.Root)
	require.NoError(t, sign(t, a))
	step(later.Root)
	require.True(t, s.Bundle().Has(former.Root), "leaves under it may live")
	issuer.ca = former
	require.ErrorContains(t, sign(t, a), "doesn't lead to a root", "no new ones are taken")
	now = now.Add(time.Hour + issuedSkew + testPolicy.Margin)
	step(later.Root)
	require.False(t, s.Bundle().Has(former.Root))
}

// fakeIssuer signs what it is asked, with a CA in the test.
type fakeIssuer struct {
	t   testing.TB
	now func() time.Time

	mu    sync.Mutex
	ca    *Signer
	fail  error
	asked int
	last  ExternalRequest
}

// Issue implements ExternalIssuer.
func (f *fakeIssuer) Issue(_ context.Context, req ExternalRequest) (ExternalAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.last = f.asked+1, req
	if f.fail != nil {
		return ExternalAnswer{}, f.fail
	}
	public, err := parseCSR(req.CSR, req.Identity)
	if err != nil {
		return ExternalAnswer{}, err
	}
	return ExternalAnswer{Certificate: issuedBy(f.t, f.ca, public, func(c *x509.Certificate) {
		c.URIs = []*url.URL{uri(req.Identity)}
		c.NotBefore, c.NotAfter = f.now().Add(-time.Minute), f.now().Add(req.Lifetime)
	})}, nil
}

// sign has an authority sign for a new key.
func sign(t testing.TB, a *Authority) error {
	t.Helper()
	key, err := GenerateKey()
	require.NoError(t, err)
	csr, err := NewCSR(testID, key)
	require.NoError(t, err)
	_, err = a.Sign(t.Context(), csr, testID)
	return err
}

// external is an authority whose CA is an issuer in the test, under a root.
func external(t testing.TB, now func() time.Time) (*Authority, *fakeIssuer, *Renewals) {
	t.Helper()
	root := newRoot(t, DefaultRootLifetime, now())
	signer, err := NewExternal(IssuerRef{Name: "corp"}, EncodeCertificates([]*x509.Certificate{root.Root}), now())
	require.NoError(t, err)
	s, _ := State{}.Step(Observed{Signer: signer, TrustDomain: testDomain, LeafLifetime: time.Hour}, testPolicy, now())
	a, issuer := NewAuthority(now), &fakeIssuer{t: t, ca: root, now: now}
	renewals := NewRenewals(now, func() {})
	a.Delegate(t.Context(), issuer, renewals)
	a.Update(s)
	return a, issuer, renewals
}

func (f *fakeIssuer) set(fail error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// TestTheOperatorHasItsOwnCertificateOfTheIssuer: it is asked for once, whoever waits; a replica is ready with it; the
// one in use is kept while the issuer fails, and that is told.
func TestTheOperatorHasItsOwnCertificateOfTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, issuer, renewals := external(t, time.Now)
		cfg := a.ServingConfig("fairway-system", "fairway-operator", "fairway-operator.fairway-system.svc")
		get := func() (*tls.Certificate, error) {
			synctest.Wait()
			return a.servings[0].certificate(t.Context())
		}
		issuer.set(Issuef(IssueDenied, "no"))
		require.ErrorContains(t, a.Ready(), "being asked")
		_, err := get()
		require.ErrorContains(t, err, "no")
		require.ErrorContains(t, a.Ready(), "no certificate of its own yet: no")
		issuer.set(nil)
		time.Sleep(servingRetry)
		require.Error(t, a.Ready(), "it never waits")
		synctest.Wait()
		require.NoError(t, a.Ready())
		first, err := get()
		require.NoError(t, err)
		require.Equal(t, "spiffe://cluster.local/ns/fairway-system/sa/fairway-operator", first.Leaf.URIs[0].String())
		require.Empty(t, first.Leaf.DNSNames, "issuers needn't sign names of the cluster")
		require.Equal(t, 2, issuer.asked)
		require.NotNil(t, cfg.GetCertificate)
		require.False(t, renewals.Summary().Any)

		issuer.set(Issuef(IssueUnavailable, "nobody there"))
		time.Sleep(31 * time.Minute)
		again, err := get()
		require.NoError(t, err)
		require.Same(t, first, again)
		time.Sleep(2 * time.Minute)
		_, _ = get()
		synctest.Wait()
		said := renewals.Summary()
		require.Equal(t, 1, said.Failing)
		require.Equal(t, first.Leaf.NotAfter, said.First)
		issuer.set(nil)
		time.Sleep(servingRetry)
		_, _ = get()
		again, err = get()
		require.NoError(t, err)
		require.NotSame(t, first, again)
		require.False(t, renewals.Summary().Any)
	})
}

func TestProbe(t *testing.T) {
	a, issuer, _ := external(t, func() time.Time { return testNow })
	s := a.state.Load().Active
	require.NoError(t, a.Probe(t.Context(), s, testID, time.Hour))
	issuer.ca = newRoot(t, DefaultRootLifetime, testNow)
	require.ErrorContains(t, a.Probe(t.Context(), s, testID, time.Hour), "doesn't lead to a root")
	require.ErrorIs(t, NewAuthority(nil).Probe(t.Context(), s, testID, time.Hour), ErrNotReady)
}

func TestABadRequestIsNotShownToTheIssuer(t *testing.T) {
	a, issuer, _ := external(t, func() time.Time { return testNow })
	_, err := a.Sign(t.Context(), []byte("x"), testID)
	require.ErrorIs(t, err, ErrBadRequest)
	key, err := GenerateKey()
	require.NoError(t, err)
	csr, err := NewCSR("spiffe://cluster.local/ns/shop/sa/other", key)
	require.NoError(t, err)
	_, err = a.Sign(t.Context(), csr, testID)
	require.ErrorIs(t, err, ErrBadRequest)
	require.Zero(t, issuer.asked)
	require.NoError(t, sign(t, a))
	require.Equal(t, time.Hour, issuer.last.Lifetime)
	require.Equal(t, testID, issuer.last.Identity)
	require.Equal(t, "corp", issuer.last.Issuer.Name)
}
