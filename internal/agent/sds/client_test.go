// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/control"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
	"github.com/fairway-mesh/fairway/internal/identity/server"
	"github.com/fairway-mesh/fairway/internal/names"
)

const serverName = "fairway-operator.fairway-system.svc"

// world is an agent with real files and a real operator over loopback HTTPS.
type world struct {
	t                     *testing.T
	cluster               *identitytest.Cluster
	operator              *operator
	tokenFile, bundleFile string
	address               string
	client                *Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, cluster: identitytest.NewCluster(nil), operator: newOperator(t, time.Hour),
		tokenFile: filepath.Join(dir, "token"), bundleFile: filepath.Join(dir, "ca.crt"),
	}
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "pay-1", UID: "p1", Node: "n2", ServiceAccount: "pay"})
	ca := w.operator.ca
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &server.Server{
		Listener: ln,
		TLS:      ca.ServingConfig(names.SystemNamespace, names.OperatorServiceAccount, serverName),
		Issuer:   ca,
		Callers:  auth.NewAuthenticator(w.cluster, nil, nil),
		Rights: &auth.Authorizer{
			SystemNamespace: names.SystemNamespace, TrustDomain: ca.TrustDomain, Pods: w.cluster, Workloads: w.cluster,
			Waypoint: w.cluster.Waypoint,
		},
		Log: logr.Discard(),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Start(ctx) }()
	w.address = ln.Addr().String()
	w.write(w.tokenFile, w.cluster.Token(identitytest.NodeAgent("n1"), time.Hour)+"\n")
	w.write(w.bundleFile, string(ca.Bundle().PEM()))
	w.client = w.clientOf(names.SPIFFEID("cluster.local", names.SystemNamespace, names.OperatorServiceAccount))
	t.Cleanup(func() {
		w.client.http.CloseIdleConnections()
		cancel()
		assert.NoError(t, <-done)
	})
	return w
}

// clientOf asks the operator, who must be of a SPIFFE ID.
func (w *world) clientOf(id string) *Client {
	return NewClient(w.address, control.New(serverName, id, w.tokenFile, w.bundleFile))
}

func (w *world) write(file, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
}

func (w *world) sign(id string) (Signed, error) {
	w.t.Helper()
	key, err := identity.GenerateKey()
	require.NoError(w.t, err)
	csr, err := identity.NewCSR(id, key)
	require.NoError(w.t, err)
	return w.client.Sign(w.t.Context(), csr, id, identity.Held{})
}

func TestClient(t *testing.T) {
	w := newWorld(t)
	s, err := w.sign(cart)
	require.NoError(t, err)
	chain, err := identity.ParseCertificates(s.Chain)
	require.NoError(t, err)
	require.NoError(t, s.Bundle.VerifyLeaf(chain, time.Now()))

	_, err = w.sign(pay)
	require.ErrorIs(t, err, errRefused)
	require.ErrorContains(t, err, "runs on node n1")

	b, fresh, err := w.client.Bundle(t.Context(), 0)
	require.NoError(t, err)
	assert.True(t, fresh)
	_, fresh, err = w.client.Bundle(t.Context(), b.Generation)
	require.NoError(t, err)
	assert.False(t, fresh)
}

func TestClientReadsTheTokenAgain(t *testing.T) {
	w := newWorld(t)
	good, err := w.client.operator.Token()
	require.NoError(t, err)
	w.write(w.tokenFile, w.cluster.Token(identitytest.NodeAgent("n1"), -time.Second))
	_, err = w.sign(cart)
	require.ErrorIs(t, err, errRefused)
	require.ErrorContains(t, err, "401")
	w.write(w.tokenFile, "")
	_, err = w.sign(cart)
	require.ErrorContains(t, err, "empty")
	w.write(w.tokenFile, good)
	_, err = w.sign(cart)
	require.NoError(t, err)
}

func TestClientTrustsTheMeshOnly(t *testing.T) {
	w := newWorld(t)
	good := w.operator.ca.Bundle().PEM()
	other, err := identity.NewRoot("cluster.local", time.Hour, time.Now())
	require.NoError(t, err)
	w.write(w.bundleFile, string(identity.EncodeCertificates(other.Chain))+string(
		(identity.Bundle{Roots: append(other.Chain, other.Root)}).PEM()))
	_, err = w.sign(cart)
	require.ErrorContains(t, err, "unknown authority")
	require.NoError(t, os.Remove(w.bundleFile))
	_, err = w.sign(cart)
	require.ErrorContains(t, err, "trust bundle")
	w.write(w.bundleFile, string(good))
	_, err = w.sign(cart)
	require.NoError(t, err)

	w.client = w.clientOf(pay)
	_, err = w.sign(cart)
	require.ErrorContains(t, err, "isn't for "+pay)
}

// A rotation over real HTTPS: the file still has the former root only, but the client learnt the announced one from
// the operator before its serving certificate changed.
func TestClientFollowsARotation(t *testing.T) {
	w := newWorld(t)
	before := w.operator.ca.Bundle()
	_, err := w.sign(cart)
	require.NoError(t, err)
	// Announce: a policy with delay, so that the new root doesn't sign yet.
	root, err := identity.NewRoot("cluster.local", time.Hour, time.Now())
	require.NoError(t, err)
	obs := identity.Observed{Signer: root, Published: before}
	announced, _ := w.operator.state.Step(obs, identity.DefaultPolicy, time.Now())
	w.operator.ca.Update(announced)
	b, fresh, err := w.client.Bundle(t.Context(), before.Generation)
	require.NoError(t, err)
	require.True(t, fresh)
	require.Len(t, b.Roots, 2)
	obs.Published = b
	used, at := announced.Step(obs, identity.DefaultPolicy, time.Now())
	used, _ = used.Step(obs, identity.DefaultPolicy, at)
	require.True(t, used.Active.Same(root))
	w.operator.ca.Update(used)
	w.client.http.CloseIdleConnections()
	s, err := w.sign(cart)
	require.NoError(t, err)
	chain, err := identity.ParseCertificates(s.Chain)
	require.NoError(t, err)
	require.NoError(t, (identity.Bundle{Roots: b.Roots[1:]}).VerifyLeaf(chain, time.Now()), "signed by the new root")
}

func TestManagerOverHTTPS(t *testing.T) {
	w := newWorld(t)
	p := &proxy{secrets: map[string]*tlsv3.Secret{}}
	m := NewManager(w.client, p, logr.Discard())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	require.NoError(t, m.Want(cart, identity.Pod{}))
	require.NoError(t, m.Await(t.Context(), cart))
	assert.NotNil(t, p.get(cart))
	assert.NotNil(t, p.get(names.TrustBundleSecret))
	cancel()
	require.NoError(t, <-done)
}
