// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// trustBundle is what the mesh trusts, as published.
func trustBundle(t *testing.T) []*x509.Certificate {
	t.Helper()
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.TrustBundleConfigMap}
	require.NoError(t, world.client.Get(lasting(t), key, &cm))
	roots, err := parse([]byte(cm.Data[names.TrustBundleKey]))
	require.NoError(t, err)
	return roots
}

// rootBesides waits until the mesh trusts a root that it didn't before.
func rootBesides(t *testing.T, before []*x509.Certificate) (root *x509.Certificate) {
	t.Helper()
	eventually.Passes(t, "a new root in the trust bundle", func(look require.TestingT) {
		now := trustBundle(t)
		n := slices.IndexFunc(now, func(c *x509.Certificate) bool { return !slices.ContainsFunc(before, c.Equal) })
		require.GreaterOrEqual(look, n, 0)
		root = now[n]
	})
	return root
}

func parse(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// keyState is where the operator's Secret says when roots were published.
const keyState = "state.json"

// caState is what of that matters here. Roots are by fingerprint.
type caState struct {
	ActiveOrigin string                    `json:"activeOrigin"`
	NextOrigin   string                    `json:"nextOrigin"`
	Roots        map[string]map[string]any `json:"roots"`
}

func stateOfCA(t *testing.T, look require.TestingT) (out caState) {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.CASecret}
	require.NoError(look, world.client.Get(lasting(t), key, &secret))
	require.NoError(look, json.Unmarshal(secret.Data[keyState], &out))
	return out
}

// announced ends the time for which a new root is published before its CA signs, once every node proxy trusts it. The
// operator waits for five minutes by itself, so whatever a test looks at meanwhile stays as it is.
func announced(t *testing.T, roots ...*x509.Certificate) {
	t.Helper()
	refreshTrust(t, slices.Collect(maps.Values(nodePods(t))), roots...)
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.CASecret}
	eventually.Passes(t, "the roots were published long ago", func(look require.TestingT) {
		var secret corev1.Secret
		require.NoError(look, world.client.Get(lasting(t), key, &secret))
		var state map[string]any
		require.NoError(look, json.Unmarshal(secret.Data[keyState], &state))
		for _, root := range state["roots"].(map[string]any) {
			root := root.(map[string]any)
			require.Contains(look, root, "published")
			root["published"] = time.Now().Add(-time.Hour).UTC()
		}
		var err error
		secret.Data[keyState], err = json.Marshal(state)
		require.NoError(look, err)
		require.NoError(look, world.client.Update(lasting(t), &secret)) // if nobody else has written it
	})
}

// refreshTrust waits until every one of some proxies trusts roots. It makes the kubelet refresh the mounted bundle at
// once, which a changed annotation does; by itself it takes a minute or two.
func refreshTrust(t *testing.T, proxies []*corev1.Pod, roots ...*x509.Certificate) {
	t.Helper()
	ctx, end := context.WithCancel(lasting(t))
	defer end()
	for _, pod := range proxies {
		patch := client.RawPatch("application/merge-patch+json",
			fmt.Appendf(nil, `{"metadata":{"annotations":{"fairway.dev/e2e":%q}}}`, rand.String(5)))
		require.NoError(t, world.client.Patch(ctx, pod.DeepCopy(), patch))
	}
	for _, pod := range proxies {
		address := forward(ctx, t, pod, names.PortAdmin)
		eventually.Passes(t, pod.Name+" trusts the new roots", func(look require.TestingT) {
			trusted := secretOf(look, address, names.TrustBundleSecret)
			for _, root := range roots {
				require.True(look, slices.ContainsFunc(trusted, root.Equal), "%s", root.Subject)
			}
		})
	}
}

// leafOf is the chain that the proxy of a pod's node shows for it.
func leafOf(s *space, app string) []*x509.Certificate {
	s.t.Helper()
	address := podPort(s.t, nodePods(s.t)[s.pod(app).Spec.NodeName], names.PortAdmin)
	var chain []*x509.Certificate
	eventually.Passes(s.t, "a certificate of "+app, func(look require.TestingT) {
		chain = secretOf(look, address, identityOf(s, app))
		require.NotEmpty(look, chain)
	})
	return chain
}

// secretOf reads the certificates of one secret from Envoy's configuration.
func secretOf(look require.TestingT, address, name string) []*x509.Certificate {
	res, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + introspect.PathEnvoy +
		"config_dump?resource=dynamic_active_secrets")
	require.NoError(look, err)
	defer res.Body.Close()
	type pemData struct {
		Bytes []byte `json:"inline_bytes"`
	}
	var dump struct {
		Configs []struct {
			Name   string `json:"name"`
			Secret struct {
				Certificate struct {
					Chain pemData `json:"certificate_chain"`
				} `json:"tls_certificate"`
				Validation struct {
					Trusted pemData `json:"trusted_ca"`
				} `json:"validation_context"`
			} `json:"secret"`
		} `json:"configs"`
	}
	require.NoError(look, json.NewDecoder(res.Body).Decode(&dump))
	for _, c := range dump.Configs {
		if c.Name == name {
			out, err := parse(append(c.Secret.Certificate.Chain.Bytes, c.Secret.Validation.Trusted.Bytes...))
			require.NoError(look, err)
			return out
		}
	}
	return nil
}

// verifies checks that a chain leads to a root, and whose it is.
func verifies(t *testing.T, chain []*x509.Certificate, root *x509.Certificate, id string) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{
		x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
	}})
	require.NoError(t, err)
	require.Len(t, chain[0].URIs, 1)
	require.Equal(t, id, chain[0].URIs[0].String())
}
