// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestAnAuthenticationPolicyIsEnforced once the proxies have the table that asks for it, and the filters that know what
// it asks for.
func TestAnAuthenticationPolicyIsEnforced(t *testing.T) {
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, v1alpha1.AddToScheme(s))
	c, err := client.New(apiserver.Start(t, apiserver.Options{Fairway: true}), client.Options{Scheme: s})
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bookshop"}}))
	policy := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Service", Name: "reviews"}},
			JWT: &v1alpha1.JWTAuthentication{Providers: []v1alpha1.JWTProvider{{
				Name: "main", Issuer: "https://login.example", JWKS: v1alpha1.JWKS{Inline: new("{}")},
			}}},
		},
	}
	require.NoError(t, c.Create(t.Context(), policy))
	require.True(t, *policy.Spec.JWT.Required, "by default")

	table := scope.Key(xds.TypeRoute, "service/bookshop/reviews/80")
	form, tokens := scope.Key(xds.TypeExtension, names.FilterForm), scope.Key(xds.TypeExtension, names.FilterTokens)
	b := newBook("w-0")
	for _, k := range []xds.Key{table, form, tokens} {
		b.say("w-0", k, xds.Pending)
	}
	w := NewEntries(c, b, logr.Discard())
	go func() { _ = w.Start(t.Context()) }()
	ref, ok := ingest.ReportRef(policy)
	require.True(t, ok)
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.GetUID(), Generation: 1, Parents: []ingest.ParentReport{{
		Ref:        gwv1.ParentReference{Kind: new(gwv1.Kind("Service")), Name: "reviews"},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
		Enforcement: &ingest.Enforcement{
			Application: true, Means: "requests without a token that is good are refused",
			Waypoints: []ingest.GuardingWaypoint{{
				Gateway: waypoint, Authentication: true,
				Tables: []model.ServicePort{{Namespace: "bookshop", Service: "reviews", Port: 80}},
			}},
		},
	}}})
	enforced := func() *metav1.Condition {
		require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
		if len(policy.Status.Ancestors) != 1 {
			return nil
		}
		return meta.FindStatusCondition(policy.Status.Ancestors[0].Conditions, v1alpha1.PolicyConditionEnforced)
	}
	for _, k := range []xds.Key{table, form, tokens} {
		eventually.True(t, "pending", func() bool {
			c := enforced()
			return c != nil && c.Status == metav1.ConditionFalse && c.Reason == v1alpha1.PolicyReasonPending
		})
		b.say("w-0", k, xds.Acked)
		w.Acknowledged(k)
	}
	eventually.True(t, "enforced", func() bool { return enforced().Status == metav1.ConditionTrue })
	require.Equal(t, "Enforced by 1/1 proxies of waypoint bookshop/fairway-waypoint; requests without a token that is "+
		"good are refused; kubelet's probes and the mesh's own proxies are never refused.", enforced().Message)
}
