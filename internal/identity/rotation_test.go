// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var testPolicy = Policy{Propagation: 5 * time.Minute, Margin: 10 * time.Minute}

// steps drives a state as the keeper does: what a step leaves is public right after it.
type steps struct {
	t         *testing.T
	state     State
	published Bundle
	lifetime  time.Duration
	wake      time.Time
}

func (s *steps) step(now time.Time, signer *Signer) {
	s.t.Helper()
	for range 2 {
		s.state, s.wake = s.state.Step(Observed{
			Signer: signer, Published: s.published, TrustDomain: testDomain, LeafLifetime: s.lifetime,
		}, testPolicy, now)
		s.published = s.state.Bundle()
	}
	data, err := s.state.Encode()
	require.NoError(s.t, err)
	if s.state, err = DecodeState(data); err != nil { // every step survives a restart
		require.NoError(s.t, err)
	}
}

func (s *steps) trusts(roots ...*Signer) {
	s.t.Helper()
	want := []string{}
	for _, r := range roots {
		want = append(want, fingerprint(r.Root))
	}
	got := []string{}
	for _, r := range s.state.Roots {
		got = append(got, fingerprint(r.certificate))
	}
	assert.Equal(s.t, want, got)
}

func TestRotationOverlaps(t *testing.T) {
	s := &steps{t: t, lifetime: time.Hour}
	old, fresh := newRoot(t, DefaultRootLifetime, testNow), newRoot(t, DefaultRootLifetime, testNow)
	now := testNow

	s.step(now, old)
	assert.True(t, s.state.Active.Same(old), "the first CA signs at once")
	s.trusts(old)
	first := s.state.generation

	now = now.Add(time.Hour)
	s.step(now, fresh)
	assert.True(t, s.state.Active.Same(old), "announced, not signing")
	assert.True(t, s.state.Next.Same(fresh))
	s.trusts(old, fresh)
	assert.Greater(t, s.state.generation, first)
	assert.Equal(t, now.Add(testPolicy.Propagation), s.wake.UTC())

	s.step(now.Add(testPolicy.Propagation-time.Second), fresh)
	assert.True(t, s.state.Active.Same(old))

	now = now.Add(testPolicy.Propagation)
	s.step(now, fresh)
	assert.True(t, s.state.Active.Same(fresh))
	assert.Nil(t, s.state.Next)
	s.trusts(old, fresh)
	end := now.Add(time.Hour + testPolicy.Margin)
	assert.Equal(t, end, s.wake.UTC())

	s.step(end.Add(-time.Second), fresh)
	s.trusts(old, fresh)
	second := s.state.generation
	s.step(end, fresh)
	s.trusts(fresh)
	assert.Greater(t, s.state.generation, second)
}

func TestRotationTable(t *testing.T) {
	now := testNow
	root := newRoot(t, DefaultRootLifetime, now)
	other := newRoot(t, DefaultRootLifetime, now)
	start := func(first *Signer) *steps {
		s := &steps{t: t, lifetime: time.Hour}
		s.step(now, first)
		return s
	}
	t.Run("a new intermediate under a root long published signs at once", func(t *testing.T) {
		s := start(newIntermediate(t, root, 24*time.Hour, now))
		next := newIntermediate(t, root, 24*time.Hour, now)
		s.step(now.Add(testPolicy.Propagation), next)
		assert.True(t, s.state.Active.Same(next))
		s.trusts(root)
	})
	t.Run("the delay counts from when the bundle is public", func(t *testing.T) {
		s := start(root)
		later := now.Add(time.Hour)
		s.state, _ = s.state.Step(Observed{Signer: other, Published: s.published, LeafLifetime: s.lifetime}, testPolicy,
			later)
		for range 5 { // the ConfigMap can't be written
			later = later.Add(testPolicy.Propagation)
			s.state, _ = s.state.Step(Observed{Signer: other, Published: s.published, LeafLifetime: s.lifetime}, testPolicy,
				later)
			assert.True(t, s.state.Active.Same(root))
		}
		s.step(later, other)
		assert.True(t, s.state.Active.Same(root))
		s.step(later.Add(testPolicy.Propagation), other)
		assert.True(t, s.state.Active.Same(other))
	})
	t.Run("going back before the new CA signed forgets it", func(t *testing.T) {
		s := start(root)
		s.step(now.Add(time.Minute), other)
		s.trusts(root, other)
		s.step(now.Add(2*time.Minute), root)
		assert.Nil(t, s.state.Next)
		s.trusts(root)
	})
	t.Run("an expired or not yet valid CA isn't taken", func(t *testing.T) {
		s := start(root)
		s.step(now.Add(time.Hour), newRoot(t, time.Minute, now))
		s.step(now.Add(time.Hour), newRoot(t, time.Hour, now.Add(24*time.Hour)))
		assert.Nil(t, s.state.Next)
		s.trusts(root)
	})
	t.Run("when the CA has expired, the next signs at once", func(t *testing.T) {
		s := start(newRoot(t, time.Hour, now))
		s.step(now.Add(2*time.Hour), other)
		assert.True(t, s.state.Active.Same(other))
		s.trusts(other)
	})
	t.Run("a shorter leaf lifetime doesn't forget longer leaves", func(t *testing.T) {
		s := start(root)
		s.lifetime = 10 * time.Minute
		s.step(now.Add(time.Minute), nil)
		s.step(now.Add(2*time.Minute), other)
		s.step(now.Add(2*time.Minute+testPolicy.Propagation), other)
		assert.True(t, s.state.Active.Same(other))
		s.step(now.Add(time.Minute+time.Hour+testPolicy.Margin-time.Second), other)
		s.trusts(root, other)
		s.step(now.Add(time.Minute+time.Hour+testPolicy.Margin), other)
		s.trusts(other)
	})
	t.Run("without its Secret, the published roots stay trusted", func(t *testing.T) {
		s := start(root)
		before := s.state.generation
		s.state = State{}
		s.step(now.Add(time.Second), other)
		s.trusts(root, other)
		assert.True(t, s.state.Active.Same(other))
		assert.Greater(t, s.state.generation, before)
		s.step(now.Add(time.Second+maxLeafLifetime+testPolicy.Margin), other)
		s.trusts(other)
	})
}

func TestNeedsRoot(t *testing.T) {
	life := 10 * time.Hour
	root := newRoot(t, life, testNow)
	foreign := newIntermediate(t, newRoot(t, life, testNow), life, testNow)
	for _, tc := range []struct {
		name  string
		state State
		now   time.Time
		want  bool
	}{
		{"nothing", State{}, testNow, true},
		{"fresh", State{Active: root}, testNow, false},
		{"old", State{Active: root}, testNow.Add(8*time.Hour + time.Minute), true},
		{
			"old with successor",
			State{Active: root, Next: newRoot(t, 24*time.Hour, testNow)},
			testNow.Add(9 * time.Hour),
			false,
		},
		{"expired", State{Active: root}, testNow.Add(11 * time.Hour), true},
		{"from an issuer", State{Active: foreign}, testNow, true},
		{"from an issuer, with successor", State{Active: foreign, Next: root}, testNow, false},
	} {
		assert.Equal(t, tc.want, tc.state.NeedsRoot(tc.now), tc.name)
	}
}

func TestACAThatAnAdministratorBroughtIsTaken(t *testing.T) {
	root, extra := newRoot(t, time.Hour, testNow), newRoot(t, 2*time.Hour, testNow)
	key, err := root.Key.PEM()
	require.NoError(t, err)
	s, err := DecodeState(map[string][]byte{
		"tls.crt": root.rootPEM(), "tls.key": key, "ca.crt": append(root.rootPEM(), extra.rootPEM()...),
	})
	require.NoError(t, err)
	assert.False(t, s.NeedsRoot(testNow))
	s, _ = s.Step(Observed{TrustDomain: testDomain, LeafLifetime: time.Hour}, testPolicy, testNow)
	assert.True(t, s.Active.Same(root))
	assert.Len(t, s.Roots, 2, "other roots stay while they are valid")

	for _, key := range []string{"tls.crt", "tls.key", "ca.crt", "state.json"} {
		data, err := s.Encode()
		require.NoError(t, err)
		data[key] = []byte("garbage")
		_, err = DecodeState(data)
		assert.ErrorContains(t, err, key)
	}
}

// TestLeavesOfBothRootsSpeakDuringARotation does real handshakes between leaves of the old and of the new root, with
// the bundle that a proxy has at each time.
func TestLeavesOfBothRootsSpeakDuringARotation(t *testing.T) {
	now := testNow
	s := &steps{t: t, lifetime: time.Hour}
	old := newIntermediate(t, newRoot(t, DefaultRootLifetime, now), 30*24*time.Hour, now)
	fresh := newRoot(t, DefaultRootLifetime, now)
	a := NewAuthority(func() time.Time { return now })

	s.step(now, old)
	a.Update(s.state)
	before, oldLeaf := s.state.Bundle(), tlsLeaf(t, a)

	now = now.Add(time.Minute)
	s.step(now, fresh)
	a.Update(s.state)
	both, stillOld := s.state.Bundle(), tlsLeaf(t, a)
	require.NoError(t, handshake(stillOld, oldLeaf, before, both, now),
		"announced: everything still verifies with the former bundle")

	now = now.Add(testPolicy.Propagation)
	s.step(now, fresh)
	a.Update(s.state)
	newLeaf := tlsLeaf(t, a)
	require.NoError(t, handshake(newLeaf, oldLeaf, both, both, now))
	require.NoError(t, handshake(oldLeaf, newLeaf, both, both, now))
	require.Error(t, handshake(newLeaf, oldLeaf, both, before, now),
		"a proxy without the announced root can't verify the new leaf")

	now = now.Add(s.lifetime + testPolicy.Margin)
	s.step(now, fresh)
	a.Update(s.state)
	after := s.state.Bundle()
	require.Len(t, after.Roots, 1)
	newest := tlsLeaf(t, a)
	require.NoError(t, handshake(newest, newest, after, after, now))
	require.NoError(t, handshake(newest, newest, both, after, now), "the former bundle verifies it too")
}

func tlsLeaf(t *testing.T, a *Authority) tls.Certificate {
	t.Helper()
	key, err := GenerateKey()
	require.NoError(t, err)
	leaf, err := a.Sign(t.Context(), csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}, key.Signer()),
		testID)
	require.NoError(t, err)
	c := tls.Certificate{PrivateKey: key.Signer()}
	for _, cert := range leaf.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// handshake runs mutual TLS over a pipe: each side has a leaf and a bundle.
func handshake(server, client tls.Certificate, serverTrusts, clientTrusts Bundle, now time.Time) error {
	verify := func(b Bundle) func(tls.ConnectionState) error {
		return func(cs tls.ConnectionState) error { return b.VerifyLeaf(cs.PeerCertificates, now) }
	}
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	serverErr := make(chan error, 1)
	go func() {
		conn := tls.Server(s, &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server},
			ClientAuth: tls.RequireAnyClientCert, VerifyConnection: verify(serverTrusts),
		})
		_, err := conn.Write([]byte("x"))
		s.Close()
		serverErr <- err
	}()
	conn := tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{client},
		InsecureSkipVerify: true, // SPIFFE: no host name; VerifyConnection verifies the chain
		VerifyConnection:   verify(clientTrusts),
	})
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.Close()
	return errors.Join(err, <-serverErr)
}

func TestServingCertificateIsRenewed(t *testing.T) {
	now := testNow
	root := newRoot(t, DefaultRootLifetime, now)
	a := newAuthority(t, root, 4*time.Hour, func() time.Time { return now })
	cfg := a.ServingConfig("fairway-system", "fairway-operator", "fairway-operator.fairway-system.svc")
	get := func() *tls.Certificate {
		c, err := cfg.GetCertificate(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		return c
	}
	first := get()
	assert.Equal(t, uint16(tls.VersionTLS13), cfg.MinVersion)
	assert.Equal(t, []string{"fairway-operator.fairway-system.svc"}, first.Leaf.DNSNames)
	assert.Equal(t, "spiffe://cluster.local/ns/fairway-system/sa/fairway-operator", first.Leaf.URIs[0].String())
	assert.Same(t, first, get())
	now = now.Add(2*time.Hour - time.Second)
	assert.Same(t, first, get())
	now = now.Add(time.Second)
	second := get()
	assert.NotSame(t, first, second)

	s := newAuthority(t, newRoot(t, DefaultRootLifetime, now), 4*time.Hour, func() time.Time { return now }).state.Load()
	a.Update(*s)
	assert.NotSame(t, second, get(), "another CA signs")

	_, err := NewAuthority(nil).ServingConfig("a", "b").GetCertificate(&tls.ClientHelloInfo{})
	assert.ErrorIs(t, err, ErrNotReady)
}
