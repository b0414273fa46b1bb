// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster/policytest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// testPolicyOnARealAPIServer: a policy of whatever kind is Programmed once acknowledged, keeps what others say of it,
// and its status is taken back when there is nothing to say any more.
func testPolicyOnARealAPIServer(t *testing.T, cfg *rest.Config) {
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, gwv1.Install(s))
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	policy := policytest.For("bookshop", "limits", 0, [2]string{"reviews", "http"})
	require.NoError(t, c.Create(ctx, policy))
	ancestor := gwv1.ParentReference{Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "reviews"}
	accepted := []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}}
	theirs := accepted[0]
	theirs.LastTransitionTime = metav1.Unix(1000, 0)
	others := gwv1.PolicyAncestorStatus{
		AncestorRef: ancestor, ControllerName: "example.org/other", Conditions: []metav1.Condition{theirs},
	}
	policy.Status.Ancestors = []gwv1.PolicyAncestorStatus{others}
	require.NoError(t, c.Status().Update(ctx, policy))

	b := newBook("w-0")
	b.say("w-0", table80, xds.Pending)
	w := newEntries(c, b, logr.Discard(), func(string) client.Object { return &gwv1.BackendTLSPolicy{} })
	go func() { _ = w.Start(ctx) }()
	ref := model.ObjectRef{Kind: "BackendTLSPolicy", Namespace: "bookshop", Name: "limits"}
	entry := ingest.ParentReport{
		Ref: ancestor, Conditions: accepted, Waypoint: waypoint, Attachments: []model.Attachment{{Port: port80}},
	}
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1, Parents: []ingest.ParentReport{entry}})
	ours := func() []gwv1.PolicyAncestorStatus {
		require.NoError(t, c.Get(ctx, client.ObjectKeyFromObject(policy), policy))
		require.Equal(t, others, policy.Status.Ancestors[0])
		return policy.Status.Ancestors[1:]
	}
	programmed := func(is metav1.ConditionStatus) func() bool {
		return func() bool {
			list := ours()
			if len(list) == 0 {
				return false
			}
			require.EqualValues(t, names.MeshController, list[0].ControllerName)
			require.True(t, meta.IsStatusConditionTrue(list[0].Conditions, "Accepted"))
			p := meta.FindStatusCondition(list[0].Conditions, v1alpha1.EntryConditionProgrammed)
			return p.Status == is
		}
	}
	eventually.True(t, "said to be pending", programmed(metav1.ConditionFalse))
	b.say("w-0", table80, xds.Acked)
	w.Acknowledged(table80)
	eventually.True(t, "programmed", programmed(metav1.ConditionTrue))
	policy.Status.Ancestors = policy.Status.Ancestors[:1]
	require.NoError(t, c.Status().Update(ctx, policy))
	w.Touch(ref)
	eventually.True(t, "written again", programmed(metav1.ConditionTrue))
	require.False(t, w.Cleared())
	w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1})
	eventually.True(t, "taken back", func() bool { return w.Cleared() && len(ours()) == 0 })
}
