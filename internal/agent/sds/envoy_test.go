// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	echov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/echo/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// TestStockEnvoyTakesTheSecrets does real handshakes with stock Envoy that has a certificate of a new root, while both
// roots are trusted: callers with leaves of either are let in, those of a third aren't. One of the anchors is itself an
// intermediate, as an issuer may put it into ca.crt.
func TestStockEnvoyTakesTheSecrets(t *testing.T) {
	bin := os.Getenv("FAIRWAY_ENVOY")
	if bin == "" {
		bin, _ = exec.LookPath("envoy")
	}
	if bin == "" {
		t.Skip("no envoy in PATH or FAIRWAY_ENVOY")
	}
	root := newCA(t, nil)
	old, stranger := newCA(t, nil), newCA(t, nil)
	anchor := newCA(t, newCA(t, nil)) // not self-signed
	under := newCA(t, anchor)
	bundle := identity.Bundle{Generation: 3, Roots: []*x509.Certificate{old.Root, root.Root, anchor.Chain[0]}}
	under.Root = anchor.Chain[0]
	under.Chain = under.Chain[:1]

	chain, key := leafOf(t, root, pay)
	cert, err := certificateSecret(pay, chain, key)
	require.NoError(t, err)
	addr := startEnvoy(t, bin, cert, bundleSecret(bundle))

	for name, tc := range map[string]struct {
		ca *identity.Signer
		ok bool
	}{
		"old root":                {old, true},
		"new root":                {root, true},
		"non-self-signed anchor":  {under, true},
		"a root that isn't known": {stranger, false},
	} {
		chain, key := leafOf(t, tc.ca, cart)
		got, err := call(t, addr, chain, key, bundle)
		if tc.ok {
			require.NoError(t, err, name)
			require.Equal(t, "hello", got, name)
		} else {
			require.Error(t, err, name)
		}
	}
}

// newCA is a root, or an intermediate under parent.
func newCA(t *testing.T, parent *identity.Signer) *identity.Signer {
	t.Helper()
	if parent == nil {
		s, err := identity.NewRoot("cluster.local", time.Hour, time.Now())
		require.NoError(t, err)
		return s
	}
	ca := testca.Of(t, parent.Certificate(), parent.Key.Signer()).Intermediate(time.Hour)
	return &identity.Signer{
		Chain: append([]*x509.Certificate{ca.Certificate}, parent.Chain...), Root: parent.Root,
		Key: identity.NewPrivateKey(ca.Key),
	}
}

func leafOf(t *testing.T, ca *identity.Signer, id string) ([]byte, identity.PrivateKey) {
	t.Helper()
	a := identity.NewAuthority(nil)
	s, _ := identity.State{}.Step(identity.Observed{Signer: ca, TrustDomain: "cluster.local", LeafLifetime: time.Hour},
		identity.DefaultPolicy, time.Now())
	a.Update(s)
	key, err := identity.GenerateKey()
	require.NoError(t, err)
	csr, err := identity.NewCSR(id, key)
	require.NoError(t, err)
	leaf, err := a.Sign(t.Context(), csr, id)
	require.NoError(t, err)
	return leaf.PEM(), key
}

func call(t *testing.T, addr string, chain []byte, key identity.PrivateKey, trusts identity.Bundle) (string, error) {
	t.Helper()
	keyPEM, err := key.PEM()
	require.NoError(t, err)
	cert, err := tls.X509KeyPair(chain, keyPEM)
	require.NoError(t, err)
	conn, err := tls.Dial("tcp", addr, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		InsecureSkipVerify: true, // SPIFFE: no host name; VerifyConnection verifies the chain
		VerifyConnection:   func(cs tls.ConnectionState) error { return trusts.VerifyLeaf(cs.PeerCertificates, time.Now()) },
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return "", err
	}
	b := make([]byte, len("hello"))
	_, err = io.ReadFull(conn, b)
	return string(b), err
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	require.NoError(t, err)
	return a
}

// startEnvoy runs stock Envoy with one mTLS listener on loopback that echoes, and returns the listener's address.
func startEnvoy(t *testing.T, bin string, secrets ...*tlsv3.Secret) string {
	t.Helper()
	dir := t.TempDir()
	admin := filepath.Join(dir, "admin.sock")
	loopback := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0},
	}}}
	downstream := &tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
				TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: pay}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: names.TrustBundleSecret},
			},
		},
	}
	b := &bootstrapv3.Bootstrap{
		Admin: &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: admin}}}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Secrets: secrets,
			Listeners: []*listenerv3.Listener{{
				Name: "mtls", Address: loopback,
				FilterChains: []*listenerv3.FilterChain{{
					TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{
						TypedConfig: pack(t, downstream),
					}},
					Filters: []*listenerv3.Filter{
						{Name: "echo", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &echov3.Echo{})}},
					},
				}},
			}},
		},
	}
	text, err := protojson.Marshal(b)
	require.NoError(t, err)
	file := filepath.Join(dir, "envoy.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, bin, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (
		net.Conn, error,
	) {
		return (&net.Dialer{}).DialContext(ctx, "unix", admin)
	}}}
	var addr string
	eventually.True(t, "Envoy's listener", func() bool {
		resp, err := client.Get("http://envoy/listeners?format=json")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var out struct {
			Listeners []struct {
				Local struct {
					Socket struct {
						Port int `json:"port_value"`
					} `json:"socket_address"`
				} `json:"local_address"`
			} `json:"listener_statuses"`
		}
		if json.NewDecoder(resp.Body).Decode(&out) != nil || len(out.Listeners) == 0 ||
			out.Listeners[0].Local.Socket.Port == 0 {
			return false
		}
		addr = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: out.Listeners[0].Local.Socket.Port}).String()
		return true
	})
	return addr
}
