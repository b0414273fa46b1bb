// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/agent/relay"
	"github.com/fairway-mesh/fairway/internal/agent/sds"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

const testTimeout = 30 * time.Second

// signer is the operator's certificate server, which may be away.
type signer struct {
	ca   *identity.Authority
	away atomic.Bool
}

func newSigner(t *testing.T) *signer {
	s := &signer{ca: identity.NewAuthority(nil)}
	root, err := identity.NewRoot("cluster.local", identity.DefaultRootLifetime, time.Now())
	require.NoError(t, err)
	var state identity.State
	for range 2 { // the root is announced, then used
		state, _ = state.Step(identity.Observed{
			Signer: root, Published: state.Bundle(), TrustDomain: "cluster.local", LeafLifetime: time.Hour,
		}, identity.Policy{Margin: time.Hour}, time.Now())
	}
	s.ca.Update(state)
	return s
}

func (s *signer) Sign(ctx context.Context, csr []byte, id string, _ identity.Held) (sds.Signed, error) {
	if s.away.Load() {
		return sds.Signed{}, errors.New("the operator is away")
	}
	leaf, err := s.ca.Sign(ctx, csr, id)
	return sds.Signed{Chain: leaf.PEM(), NotAfter: leaf.NotAfter, Bundle: s.ca.Bundle()}, err
}

func (s *signer) Bundle(context.Context, int64) (identity.Bundle, bool, error) {
	return identity.Bundle{}, false, nil
}
func (s *signer) Trusted() (identity.Bundle, error) { return s.ca.Bundle(), nil }

// publisher hands secrets to the relay, as the agent does.
type publisher struct {
	t     *testing.T
	relay *relay.Relay
}

func (p publisher) PublishSecrets(changed []*tlsv3.Secret, removed []string) {
	var updates []xds.Update
	for _, s := range changed {
		r, err := xds.NewResource(s.GetName(), s)
		if err != nil {
			p.t.Error("a secret can't be packed")
			continue
		}
		updates = append(updates, xds.Set(r))
	}
	for _, name := range removed {
		updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeSecret, Name: name}))
	}
	p.relay.SetLocal(xds.TypeSecret, updates)
}

// realNode is a node's agent with a real Envoy, a real kernel and no operator.
func realNode(t *testing.T) (*Enroller, *signer) {
	netnstest.NeedRoot(t)
	xdstest.Binary(t)
	// A Unix socket's path must be short.
	dir, err := os.MkdirTemp("", "fw")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := relay.New(relay.Options{
		Dial: func() (*grpc.ClientConn, error) {
			return grpc.NewClient("unix://"+filepath.Join(dir, "operator.sock"),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		// A node proxy asks for no wildcard of clusters; this test's does, and is told that there are none.
		Local: []string{xds.TypeSecret, xds.TypeListener, xds.TypeCluster},
		Log:   logr.Discard(),
	})
	require.NoError(t, err)
	lis, err := relay.Listen(filepath.Join(dir, "xds.sock"))
	require.NoError(t, err)
	s := newSigner(t)
	m := sds.NewManager(s, publisher{t, r}, logr.Discard())
	go func() { _ = r.Serve(ctx, lis) }()
	go func() { _ = r.Run(ctx) }()
	go func() { _ = m.Start(ctx) }()
	k, err := kernel.New(proxymark.From(1, 2), nil)
	require.NoError(t, err)
	r.LocalReady(xds.TypeListener)
	r.LocalReady(xds.TypeCluster)
	e := xdstest.Start(t, xdstest.Options{XDSSocket: filepath.Join(dir, "xds.sock"), Wildcards: true})
	e.Eventually("live", func() bool { _, err := e.Get("/ready"); return err == nil })
	return New(Options{
		Proxy: r, Certificates: m, Kernel: k, Host: nowhere{}, Neighbours: nowhere{}, Observer: nowhere{},
		Log:   logr.Discard(),
		Waits: Waits{Certificate: 100 * time.Millisecond, Linger: time.Nanosecond, Verify: time.Hour},
	}), s
}

// nowhere keeps a test from changing the machine's own rules.
type nowhere struct{}

func (nowhere) Set(string, []netip.AddrPort) error { return nil }
func (nowhere) Note(string, []netip.AddrPort)      {}
func (nowhere) Repaired()                          {}
func (nowhere) Refused(Target, capture.Refused)    {}

func (nowhere) Captured(translatenode.Pod)        {}
func (nowhere) Released(context.Context, string)  {}
func (nowhere) Forgotten(context.Context, string) {}

func realTarget(ns *netns.Namespace) Target {
	return Target{
		Pod: translatenode.Pod{
			UID: "uid-1", Namespace: "shop", Name: "cart", IPs: []netip.Addr{netip.MustParseAddr("10.244.0.1")},
			Identity: "spiffe://cluster.local/ns/shop/sa/cart", Netns: ns.Path(),
		},
		ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	}
}

// A pod that starts is captured by a real Envoy while the operator is away, after the time that its listeners wait for
// what guards it; it answers mTLS once it has a certificate.
func TestEnvoyServesAStartingPod(t *testing.T) {
	n, s := realNode(t)
	s.away.Store(true)
	ns := netnstest.New(t, "pod")
	target := realTarget(ns)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	began := time.Now()
	require.NoError(t, n.Capture(ctx, target, Starting))
	require.Less(t, time.Since(began), testTimeout/2, "a pod's start doesn't wait for the operator for ever")
	// On the port of mTLS it listens, too, and nobody passes the handshake yet.
	open, err := n.kernel.Listening(ns.Path(), names.PortOutbound, names.PortInbound, names.PortMTLS)
	require.NoError(t, err)
	require.Equal(t, map[uint16]bool{names.PortOutbound: true, names.PortInbound: true, names.PortMTLS: true}, open)
	has, err := n.kernel.Has(ns.Path())
	require.NoError(t, err)
	require.True(t, has)

	require.ErrorContains(t, n.Capture(ctx, target, Running), "the operator is away")
	s.away.Store(false)
	eventually.True(t, "the pod is captured, the operator back", func() bool {
		return n.Capture(ctx, target, Running) == nil
	})
	open, err = n.kernel.Listening(ns.Path(), names.PortMTLS)
	require.NoError(t, err)
	require.True(t, open[names.PortMTLS])

	// And let go again.
	eventually.True(t, "the pod is released", func() bool {
		wait, err := n.Release(ctx, target.Pod.UID)
		return err == nil && wait == 0
	})
	has, err = n.kernel.Has(ns.Path())
	require.NoError(t, err)
	require.False(t, has)
	eventually.True(t, "the proxy leaves the namespace", func() bool {
		open, err := n.kernel.Listening(ns.Path(), names.PortOutbound, names.PortInbound, names.PortMTLS)
		return err == nil && !open[names.PortOutbound] && !open[names.PortInbound] && !open[names.PortMTLS]
	})
}
