// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestTokensAreTheWaypoints: what a policy asks for goes to the proxies of the waypoint, and to nobody else; an edit
// changes that, and no table.
func TestTokensAreTheWaypoints(t *testing.T) {
	h := newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Set(tokensOf(1, "https://first.example"))
	h.Synced()
	has := func(scope xds.Scope, typeURL, name string) *xds.Resource {
		k := scope.Key(typeURL, name)
		h.Interest(xds.Interest{Key: k, Wanted: true})
		h.process()
		r, _ := h.cache.Get(k)
		return r
	}
	tokens := func() string {
		r := has(sharedScope, xds.TypeExtension, names.FilterTokens)
		require.NotNil(t, r)
		return string(as[*corev3.TypedExtensionConfig](t, r).GetTypedConfig().GetValue())
	}
	require.NotNil(t, has(sharedScope, xds.TypeExtension, names.FilterForm))
	require.Nil(t, has(catalogue.NodeScope("n"), xds.TypeExtension, names.FilterTokens))
	require.Contains(t, tokens(), "https://first.example")
	table := has(sharedScope, xds.TypeRoute, "service/bookshop/reviews/80")
	require.NotNil(t, table)

	h.Set(tokensOf(2, "https://second.example"))
	h.process()
	require.Contains(t, tokens(), "https://second.example")
	require.NotContains(t, tokens(), "https://first.example")
	require.True(t, table.Equal(has(sharedScope, xds.TypeRoute, "service/bookshop/reviews/80")))
}

// tokensOf an issuer are what a policy asks for of requests to the Service reviews.
func tokensOf(generation int64, issuer string) *v1alpha1.AuthenticationPolicy {
	return &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews", Generation: generation},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Service", Name: "reviews"}},
			JWT: &v1alpha1.JWTAuthentication{Providers: []v1alpha1.JWTProvider{{
				Name: "main", Issuer: issuer, JWKS: v1alpha1.JWKS{Inline: new(
					`{"keys": [{"kty": "EC", "crv": "P-256", "x": "WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis", ` +
						`"y": "y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}]}`)},
			}}},
		},
	}
}
