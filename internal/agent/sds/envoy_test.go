// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// TestStockEnvoyTakesTheSecrets does real handshakes with stock Envoy that has a certificate of a new root, while both
// roots are trusted: callers with leaves of either are let in, those of a third aren't. One of the anchors is itself an
// intermediate, as an issuer may put it into ca.crt.
func TestStockEnvoyTakesTheSecrets(t *testing.T) {
	xdstest.Binary(t) // or skip
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
	addr := startEnvoy(t, cert, bundleSecret(bundle))

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

// startEnvoy runs stock Envoy with one mTLS listener on loopback that echoes, and returns the listener's address.
func startEnvoy(t *testing.T, secrets ...*tlsv3.Secret) (address string) {
	t.Helper()
	sdsConfig := func(name string) map[string]any { return map[string]any{"name": name} }
	options := xdstest.Options{XDSSocket: filepath.Join(t.TempDir(), "none.sock"), Listeners: []any{map[string]any{
		"name":    "mtls",
		"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{map[string]any{
			"transport_socket": map[string]any{"name": "tls", "typed_config": map[string]any{
				"@type":                      "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
				"require_client_certificate": true,
				"common_tls_context": map[string]any{
					"tls_params": map[string]any{
						"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
					},
					"tls_certificate_sds_secret_configs":   []any{sdsConfig(pay)},
					"validation_context_sds_secret_config": sdsConfig(names.TrustBundleSecret),
				},
			}},
			"filters": []any{map[string]any{"name": "echo", "typed_config": map[string]any{
				"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
			}}},
		}},
	}}}
	for _, s := range secrets {
		text, err := protojson.Marshal(s)
		require.NoError(t, err)
		options.Secrets = append(options.Secrets, json.RawMessage(text))
	}
	e := xdstest.Start(t, options)
	e.Eventually("Envoy's listener", func() bool {
		text, err := e.Get("/listeners")
		_, address, _ = strings.Cut(strings.TrimSpace(text), "mtls::")
		return err == nil && address != "" && !strings.HasSuffix(address, ":0")
	})
	return address
}
