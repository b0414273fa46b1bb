// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/fairway-mesh/fairway/internal/agent/control"
	"github.com/fairway-mesh/fairway/internal/agent/sds"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
	"github.com/fairway-mesh/fairway/internal/identity/server"
	"github.com/fairway-mesh/fairway/internal/identity/xdsauth"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	serverName = "fairway-operator.fairway-system.svc"
	operatorID = "spiffe://cluster.local/ns/fairway-system/sa/fairway-operator"
	cluster    = "10.0.0.1:80" // that the operator serves
)

// world is an operator that serves xDS and certificates on loopback under one CA, and the files that an agent has.
type world struct {
	t                     *testing.T
	ca                    *identity.Authority
	state                 identity.State
	cluster               *identitytest.Cluster
	xds, certificates     string // host:port
	tokenFile, bundleFile string
	operator              *control.Operator
	// counted are the scopes of those who told of their callers.
	counted chan counts.Source
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, ca: identity.NewAuthority(nil), cluster: identitytest.NewCluster(nil),
		tokenFile: filepath.Join(dir, "token"), bundleFile: filepath.Join(dir, "ca.crt"),
		counted: make(chan counts.Source, 1),
	}
	w.step(newRoot(t)) // the first signs at once
	w.operator = control.New(serverName, operatorID, w.tokenFile, w.bundleFile)
	tls := w.ca.ServingConfig(names.SystemNamespace, names.OperatorServiceAccount, serverName)
	callers := auth.NewAuthenticator(w.cluster, nil, nil)
	rights := &auth.Authorizer{
		SystemNamespace: names.SystemNamespace, TrustDomain: w.ca.TrustDomain, Pods: w.cluster, Workloads: w.cluster,
		Waypoint: w.cluster.Waypoint,
	}
	xdsTLS := tls.Clone()
	xdsTLS.NextProtos = []string{"h2"}
	g := grpc.NewServer(append(xds.GRPCOptions(0), grpc.Creds(credentials.NewTLS(xdsTLS)))...)
	cache := xds.NewCache()
	resource, err := xds.NewResource(cluster, &clusterv3.Cluster{Name: cluster})
	require.NoError(t, err)
	cache.Apply(catalogue.NodeScope("n1"), []xds.Update{xds.Set(resource)})
	authenticator := &xdsauth.Authenticator{Callers: callers, Scopes: rights}
	xds.NewServer(xds.Options{Cache: cache, Authenticator: authenticator}).Register(g)
	counts.NewServer(authenticator, func(from counts.Source, _ []counts.Count) { w.counted <- from }).Register(g)
	ln := listen(t)
	w.xds = ln.Addr().String()
	ended := make(chan error, 2)
	xdsListener := ln
	go func() {
		err := g.Serve(xdsListener)
		if errors.Is(err, grpc.ErrServerStopped) { // before it began
			err = nil
		}
		ended <- err
	}()
	ln = listen(t)
	w.certificates = ln.Addr().String()
	s := &server.Server{Listener: ln, TLS: tls, Issuer: w.ca, Callers: callers, Rights: rights, Log: logr.Discard()}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- s.Start(ctx) }()
	t.Cleanup(func() {
		g.Stop()
		cancel()
		assert.NoError(t, <-ended)
		assert.NoError(t, <-ended)
	})
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}

func newRoot(t *testing.T) *identity.Signer {
	t.Helper()
	root, err := identity.NewRoot("cluster.local", identity.DefaultRootLifetime, time.Now())
	require.NoError(t, err)
	return root
}

// step takes the CA towards a root: it is announced first, and signs after another step.
func (w *world) step(root *identity.Signer) {
	w.state, _ = w.state.Step(identity.Observed{
		Signer: root, Published: w.state.Bundle(), TrustDomain: "cluster.local", LeafLifetime: time.Hour,
	}, identity.Policy{Margin: time.Hour}, time.Now())
	w.ca.Update(w.state)
}

func (w *world) write(file, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
}

// stream opens an xDS stream on a new connection, and returns what came of it.
func (w *world) stream() error {
	w.t.Helper()
	conn, err := w.operator.DialGRPC("passthrough:///" + w.xds)
	require.NoError(w.t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: xds.TypeCluster, ResourceNamesSubscribe: []string{cluster}, Node: &corev3.Node{Id: "n1"},
	}); err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

// sign asks for a certificate on a new connection.
func (w *world) sign() error {
	w.t.Helper()
	key, err := identity.GenerateKey()
	require.NoError(w.t, err)
	id := names.SPIFFEID("cluster.local", "shop", "cart")
	csr, err := identity.NewCSR(id, key)
	require.NoError(w.t, err)
	_, err = sds.NewClient(w.certificates, w.operator).Sign(w.t.Context(), csr, id, identity.Held{})
	return err
}

// TestBothInterfacesFollowTheFiles: what is wrong with a file is said by both, and the next try reads it again.
func TestBothInterfacesFollowTheFiles(t *testing.T) {
	w := newWorld(t)
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	fails := func(text string) {
		t.Helper()
		require.ErrorContains(t, w.stream(), text)
		require.ErrorContains(t, w.sign(), text)
	}
	good := w.cluster.Token(identitytest.NodeAgent("n1"), time.Hour) + "\n"
	w.write(w.tokenFile, good)
	fails("the operator can't be verified: read the mesh's trust bundle")
	w.write(w.bundleFile, "")
	fails("the operator can't be verified: " + w.bundleFile)
	w.write(w.bundleFile, string(identity.Bundle{Roots: []*x509.Certificate{newRoot(t).Root}}.PEM()))
	fails("certificate signed by unknown authority")
	w.write(w.bundleFile, string(w.ca.Bundle().PEM()))
	require.NoError(t, os.Remove(w.tokenFile))
	fails("no token to authenticate to the operator with")
	w.write(w.tokenFile, " \n")
	fails(w.tokenFile + " is empty")
	w.write(w.tokenFile, w.cluster.Token(identitytest.NodeAgent("n1"), -time.Second))
	require.Error(t, w.stream())
	require.Error(t, w.sign())
	w.write(w.tokenFile, good)
	require.NoError(t, w.stream())
	require.NoError(t, w.sign())
}

// TestBothInterfacesFollowAChangeOfCA: kubelet is late with the mounted bundle, or has lost it, and the operator's
// certificate is from the new CA. What it announced on the one interface counts on the other.
func TestBothInterfacesFollowAChangeOfCA(t *testing.T) {
	w := newWorld(t)
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	w.write(w.tokenFile, w.cluster.Token(identitytest.NodeAgent("n1"), time.Hour))
	before := w.ca.Bundle()
	w.write(w.bundleFile, string(before.PEM()))
	require.NoError(t, w.stream())
	root := newRoot(t)
	w.step(root)
	_, fresh, err := sds.NewClient(w.certificates, w.operator).Bundle(t.Context(), before.Generation)
	require.NoError(t, err)
	require.True(t, fresh)
	w.step(root)
	w.step(root)
	require.True(t, w.state.Active.Same(root))
	for range 2 {
		require.NoError(t, w.stream())
		require.NoError(t, w.sign())
		_ = os.Remove(w.bundleFile)
	}
	// Who was not there to hear it has nothing but the file.
	w.operator = control.New(serverName, operatorID, w.tokenFile, w.bundleFile)
	w.write(w.bundleFile, string(before.PEM()))
	require.ErrorContains(t, w.stream(), "certificate signed by unknown authority")
	require.ErrorContains(t, w.sign(), "certificate signed by unknown authority")
}

func TestAnOlderBundleIsNotLearnt(t *testing.T) {
	w := newWorld(t)
	newer := identity.Bundle{Generation: 7, Roots: []*x509.Certificate{newRoot(t).Root}}
	w.operator.Learn(newer)
	w.operator.Learn(identity.Bundle{Generation: 6, Roots: []*x509.Certificate{newRoot(t).Root}})
	b, err := w.operator.Trusted()
	require.NoError(t, err)
	require.True(t, b.Equal(newer))
	file := identity.Bundle{Generation: 8, Roots: []*x509.Certificate{newRoot(t).Root}}
	w.write(w.bundleFile, string(file.PEM()))
	b, err = w.operator.Trusted()
	require.NoError(t, err)
	require.True(t, b.Equal(file))
}

// TestWhoGivesIdentitiesGivesTheRoots: nothing is trusted before, the newest roots count, and what an operator sends
// changes nothing.
func TestWhoGivesIdentitiesGivesTheRoots(t *testing.T) {
	w := newWorld(t)
	w.operator = control.Learning(serverName, operatorID, w.tokenFile)
	_, err := w.operator.TLS()
	require.ErrorContains(t, err, "no trust bundle has been given yet")
	stranger := newRoot(t)
	w.operator.Give([]*x509.Certificate{stranger.Root})
	client := sds.NewClient(w.certificates, w.operator)
	require.Error(t, client.Failing(t.Context(), nil))
	w.operator.Give(w.ca.Bundle().Roots)
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	require.NoError(t, os.WriteFile(w.tokenFile, []byte(w.cluster.Token(identitytest.NodeAgent("n1"), time.Hour)), 0o600))
	require.NoError(t, client.Failing(t.Context(), nil))
	w.operator.Give([]*x509.Certificate{stranger.Root})
	_, err = tlsDial(t, w)
	require.Error(t, err)
}

func tlsDial(t *testing.T, w *world) (*tls.Conn, error) {
	t.Helper()
	cfg, err := w.operator.TLS()
	require.NoError(t, err)
	conn, err := tls.Dial("tcp", w.certificates, cfg)
	if err == nil {
		_ = conn.Close()
	}
	return conn, err
}
