// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package spire

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/spire/spiretest"
)

// TestOwn: the operator has its identity by the Workload API of a real agent, serves with it and knows its other
// replicas by it; it takes no other identity, though SPIRE has one for it.
func TestOwn(t *testing.T) {
	t.Parallel()
	s := spiretest.Start(t)
	from, err := NewWorkload(t.Context(), s.Workload, spiretest.TrustDomain)
	require.NoError(t, err)
	t.Cleanup(func() { _ = from.Close() })
	operator := id(names.SystemNamespace, names.OperatorServiceAccount)
	var mu sync.Mutex
	var held identity.Held
	var failure error
	said := func() (identity.Held, error) {
		mu.Lock()
		defer mu.Unlock()
		return held, failure
	}
	own := NewOwn(from, spiretest.TrustDomain, operator, func() {}, func(h identity.Held, err error) {
		mu.Lock()
		defer mu.Unlock()
		held, failure = h, err
	})
	background(t, own.Run)
	authority := identity.NewAuthority(nil)
	config := authority.MutualConfig(names.SystemNamespace, names.OperatorServiceAccount)
	authority.UseOutside(own)
	fails := func(text string) {
		t.Helper()
		eventually.True(t, "an error: "+text, func() bool {
			err := authority.Ready()
			_, told := said()
			return err != nil && told != nil && contains(err, text) && contains(told, text)
		})
	}
	fails("no registration entry")
	s.Entry(id("shop", "cart"), 600, spiretest.Me())
	fails("which is refused")
	s.Entry(operator, 20, spiretest.Me())
	eventually.True(t, "the identity", func() bool { return authority.Ready() == nil })
	require.Equal(t, spiretest.TrustDomain, authority.TrustDomain())
	require.Len(t, authority.Bundle().Roots, 1)
	_, err = authority.Sign(t.Context(), nil, id("shop", "cart"))
	require.ErrorIs(t, err, identity.ErrBadRequest)

	first, err := own.Certificate(operator)
	require.NoError(t, err)
	require.NoError(t, handshake(t, config, config))
	_, err = own.Certificate(id("shop", "cart"))
	require.Error(t, err)
	other := follow(t, from, id("shop", "cart")).await(t, "another identity of this process", some)
	stranger := config.Clone()
	stranger.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return other.TLS(), nil }
	require.ErrorContains(t, handshake(t, stranger, config), "and not "+operator)

	eventually.True(t, "a renewal", func() bool {
		now, err := own.Certificate(operator)
		return err == nil && now.Leaf.NotAfter.After(first.Leaf.NotAfter)
	})
	s.StopAgent()
	eventually.True(t, "it is told that the agent is away, and how long the identity holds", func() bool {
		h, err := said()
		return err != nil && h.NotAfter.After(time.Now()) && !h.FailingSince.IsZero()
	})
	require.NoError(t, authority.Ready(), "what there is holds")
	eventually.True(t, "it ends", func() bool { return authority.Ready() != nil })
}

// TestWorkloadOfAnotherTrustDomain: SPIRE's roots are those of its trust domain.
func TestWorkloadOfAnotherTrustDomain(t *testing.T) {
	t.Parallel()
	s := spiretest.Start(t)
	s.Entry(id("shop", "cart"), 600, spiretest.Me())
	from, err := NewWorkload(t.Context(), s.Workload, "else.example")
	require.NoError(t, err)
	t.Cleanup(func() { _ = from.Close() })
	followBundle(t, from).awaitError(t, "another trust domain")
	follow(t, from, "spiffe://else.example/ns/shop/sa/cart").awaitError(t, "which is refused")
}

// handshake is the server's error of a connection.
func handshake(t *testing.T, client, server *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			err = tls.Server(conn, server).HandshakeContext(t.Context())
		}
		accepted <- err
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	require.NoError(t, err) // of TLS 1.3 the client is done first
	defer conn.Close()
	return <-accepted
}
