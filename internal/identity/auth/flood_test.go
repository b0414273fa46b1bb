// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
)

// peer is where a test's tokens come from unless it says else.
var peer = netip.MustParseAddr("10.244.0.5")

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// forged is what an attacker makes of what it knows: all but the signature. Each is another token.
func forged(n int) string {
	return jwt(fmt.Sprintf(`{"aud":["fairway.dev"],"exp":%d,"sub":"system:serviceaccount:fairway-system:fairway-node","jti":"%d",
		"kubernetes.io":{"pod":{"name":"fairway-node-x","uid":"u"},"node":{"name":"n1"}}}`, time.Now().Add(time.Hour).Unix(), n))
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }

func TestHopelessTokensCostNoReview(t *testing.T) {
	c := identitytest.NewCluster(nil)
	a := auth.NewAuthenticator(c, nil, nil)
	const pod = `"kubernetes.io":{"pod":{"name":"p","uid":"u"},"node":{"name":"n1"}}`
	for name, token := range map[string]string{
		"a word":                "nonsense",
		"two parts":             "e30.e30",
		"no signature":          "e30.e30.",
		"no base64":             "e30.!!.c2ln",
		"no JSON":               "e30." + base64.RawURLEncoding.EncodeToString([]byte("{")) + ".c2ln",
		"a header that is none": "bm8.e30.c2ln",
		"no claims":             jwt(`{}`),
		"another audience": jwt(
			`{"aud":["https://kubernetes.default.svc"],"sub":"system:serviceaccount:a:b","exp":9999999999,` + pod + `}`),
		"an audience of numbers": jwt(`{"aud":[1],"sub":"system:serviceaccount:a:b","exp":9999999999,` + pod + `}`),
		"a person":               jwt(`{"aud":"fairway.dev","sub":"jane","exp":9999999999,` + pod + `}`),
		"no pod":                 jwt(`{"aud":"fairway.dev","sub":"system:serviceaccount:a:b","exp":9999999999}`),
		"expired an hour ago": jwt(
			fmt.Sprintf(`{"aud":"fairway.dev","sub":"system:serviceaccount:a:b","exp":%d,%s}`, time.Now().Add(-time.Hour).Unix(),
				pod)),
		"an end that is no number": jwt(`{"aud":"fairway.dev","sub":"system:serviceaccount:a:b","exp":"never",` + pod + `}`),
	} {
		_, err := a.Caller(t.Context(), token, peer)
		require.ErrorIs(t, err, auth.ErrUnauthenticated, name)
	}
	require.Zero(t, c.Reviews())
	_, err := a.Caller(t.Context(),
		jwt(`{"aud":"fairway.dev","sub":"system:serviceaccount:a:b","exp":9999999999,`+pod+`}`), peer)
	require.ErrorIs(t, err, auth.ErrUnauthenticated)
	require.Equal(t, 1, c.Reviews(), "what may be good is the API server's to judge")
}

// within is how many reviews a flood may have cost that began then.
func within(burst, perSecond int, began time.Time) int {
	return burst + int(float64(perSecond)*time.Since(began).Seconds()) + 1
}

func TestAFloodOfTokens(t *testing.T) {
	c := identitytest.NewCluster(nil)
	a := auth.NewAuthenticator(c, nil, nil)
	known, late := netip.MustParseAddr("10.244.0.6"), netip.MustParseAddr("10.244.0.7")
	first := c.Token(identitytest.NodeAgent("n1"), time.Hour)
	_, err := a.Caller(t.Context(), first, known)
	require.NoError(t, err)

	before, began := c.Reviews(), time.Now()
	refused := 0
	for i := range 5000 {
		_, err := a.Caller(t.Context(), forged(i), peer)
		require.Error(t, err)
		if _, again := a.Caller(t.Context(), forged(i), peer); again != nil {
			refused++
		}
	}
	require.Equal(t, 5000, refused)
	require.LessOrEqual(t, c.Reviews()-before, within(128, 2, began), "from one address")
	_, err = a.Caller(t.Context(), c.Token(identitytest.NodeAgent("n2"), time.Hour), late)
	require.NoError(t, err, "an address that nobody knows yet, during that flood")
	_, err = a.Caller(t.Context(), c.Token(identitytest.NodeAgent("n3"), time.Hour), peer)
	require.ErrorIs(t, err, auth.ErrUnavailable, "the flood's own address: to be asked again")

	before, began = c.Reviews(), time.Now()
	for i := range 5000 {
		_, err := a.Caller(t.Context(), forged(10_000+i), address(i))
		require.Error(t, err)
	}
	require.LessOrEqual(t, c.Reviews()-before, within(600, 60, began), "from as many addresses")
	before = c.Reviews()
	_, err = a.Caller(t.Context(), c.Token(identitytest.NodeAgent("n4"), time.Hour), known)
	require.NoError(t, err, "another token from an address that is known")
	require.Equal(t, before+1, c.Reviews())
	_, err = a.Caller(t.Context(), first, known)
	require.NoError(t, err)
	require.Equal(t, before+1, c.Reviews(), "the flood displaced no good verdict")
}

// slow answers nobody but some tokens.
type slow struct {
	*identitytest.Cluster
	mu      sync.Mutex
	at      int
	entered chan struct{}
	good    func() bool
}

func (s *slow) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if s.good() {
		return s.Cluster.Create(ctx, o, opts...)
	}
	s.mu.Lock()
	s.at++
	s.mu.Unlock()
	s.entered <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// An API server that takes its time with a flood is not asked for more than it has, and answers others meanwhile.
func TestSlowReviews(t *testing.T) {
	known := netip.MustParseAddr("10.244.0.6")
	var good atomic.Bool
	s := &slow{Cluster: identitytest.NewCluster(nil), entered: make(chan struct{}, 1000), good: good.Load}
	a := auth.NewAuthenticator(s, nil, nil)
	good.Store(true)
	_, err := a.Caller(t.Context(), s.Token(identitytest.NodeAgent("n1"), time.Hour), known)
	require.NoError(t, err)
	good.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() { _, _ = a.Caller(ctx, forged(i), address(i)) })
	}
	for range 16 {
		<-s.entered
	}
	good.Store(true)
	_, err = a.Caller(t.Context(), s.Token(identitytest.NodeAgent("n2"), time.Hour), known)
	require.NoError(t, err)
	s.mu.Lock()
	require.Equal(t, 16, s.at)
	s.mu.Unlock()
	cancel()
	group.Wait()
}
