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
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestATrafficPolicyIsProgrammed once the proxies have the cluster that it is about, whosever kind it is.
func TestATrafficPolicyIsProgrammed(t *testing.T) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwxv1alpha1.Install,
	} {
		require.NoError(t, add(s))
	}
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Experimental})
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bookshop"}}))
	of := metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"}
	target := gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "reviews"}
	for _, policy := range []client.Object{
		&v1alpha1.TrafficPolicy{ObjectMeta: of, Spec: v1alpha1.TrafficPolicySpec{
			TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: target}},
		}},
		&gwxv1alpha1.XBackendTrafficPolicy{ObjectMeta: of, Spec: gwxv1alpha1.BackendTrafficPolicySpec{
			TargetRefs:      []gwv1.LocalPolicyTargetReference{target},
			RetryConstraint: &gwxv1alpha1.RetryConstraint{},
		}},
	} {
		t.Run(cluster.NameOf(policy), func(t *testing.T) { isProgrammed(t, c, policy) })
	}
}

func isProgrammed(t *testing.T, c client.Client, policy client.Object) {
	require.NoError(t, c.Create(t.Context(), policy))
	cluster80 := scope.Key(xds.TypeCluster, "service/bookshop/reviews/80")
	b := newBook("w-0")
	b.say("w-0", cluster80, xds.Pending)
	w := NewEntries(c, b, logr.Discard())
	go func() { _ = w.Start(t.Context()) }()
	ref, ok := ingest.ReportRef(policy)
	require.True(t, ok)
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.GetUID(), Generation: 1, Parents: []ingest.ParentReport{{
		Ref: gwv1.ParentReference{Kind: new(gwv1.Kind("Service")), Name: "reviews"}, Waypoint: waypoint,
		Clusters:   []string{cluster80.Name},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
	}}})
	programmed := func(is metav1.ConditionStatus) func() bool {
		return func() bool {
			require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
			p, ok := cluster.PolicyOf(policy)
			require.True(t, ok)
			return len(*p.Ancestors()) == 1 &&
				meta.IsStatusConditionPresentAndEqual((*p.Ancestors())[0].Conditions, "Programmed", is)
		}
	}
	eventually.True(t, "pending", programmed(metav1.ConditionFalse))
	b.say("w-0", cluster80, xds.Acked)
	w.Acknowledged(cluster80)
	eventually.True(t, "programmed", programmed(metav1.ConditionTrue))
}
