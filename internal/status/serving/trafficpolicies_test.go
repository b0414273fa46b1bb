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
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestATrafficPolicyIsProgrammed once the proxies have the cluster that it is about.
func TestATrafficPolicyIsProgrammed(t *testing.T) {
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, v1alpha1.AddToScheme(s))
	c, err := client.New(apiserver.Start(t, apiserver.Options{Fairway: true}), client.Options{Scheme: s})
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bookshop"}}))
	policy := &v1alpha1.TrafficPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"}}
	policy.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{
		LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "reviews"},
	}}
	require.NoError(t, c.Create(t.Context(), policy))
	cluster80 := scope.Key(xds.TypeCluster, "service/bookshop/reviews/80")
	b := newBook("w-0")
	b.say("w-0", cluster80, xds.Pending)
	w := NewEntries(c, b, logr.Discard())
	go func() { _ = w.Start(t.Context()) }()
	ref, ok := ingest.ReportRef(policy)
	require.True(t, ok)
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1, Parents: []ingest.ParentReport{{
		Ref: gwv1.ParentReference{Kind: new(gwv1.Kind("Service")), Name: "reviews"}, Waypoint: waypoint,
		Clusters:   []string{cluster80.Name},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
	}}})
	programmed := func(is metav1.ConditionStatus) func() bool {
		return func() bool {
			require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
			return len(policy.Status.Ancestors) == 1 &&
				meta.IsStatusConditionPresentAndEqual(policy.Status.Ancestors[0].Conditions, "Programmed", is)
		}
	}
	eventually.True(t, "pending", programmed(metav1.ConditionFalse))
	b.say("w-0", cluster80, xds.Acked)
	w.Acknowledged(cluster80)
	eventually.True(t, "programmed", programmed(metav1.ConditionTrue))
}
