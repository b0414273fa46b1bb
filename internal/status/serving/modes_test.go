// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestModesAreEnforced once all agents say so.
func TestModesAreEnforced(t *testing.T) {
	const probes = "; kubelet's probes are never refused"
	legacy := []types.NamespacedName{{Namespace: "shop", Name: "legacy"}}
	late := ingest.GuardedPod{Pod: types.NamespacedName{Namespace: "shop", Name: "web-1"}, Node: "n2"}
	for name, c := range map[string]struct {
		modes  ingest.Modes
		status metav1.ConditionStatus
		reason string
		text   string
	}{
		"nobody": {
			ingest.Modes{},
			"True", v1alpha1.PolicyReasonEnforced,
			"enforced from the start for pods that come: there are none now" + probes,
		},
		"all": {
			ingest.Modes{Pods: 3, Nodes: 2, Done: 3},
			"True", v1alpha1.PolicyReasonEnforced,
			"enforced for 3 of 3 pods on 2 nodes" + probes,
		},
		"one is late": {
			ingest.Modes{Pods: 3, Nodes: 2, Done: 2, Late: late, Uncaptured: legacy},
			"False", v1alpha1.PolicyReasonPending,
			"enforced for 2 of 3 pods on 2 nodes; the agent of node n2 does not say yet that pod shop/web-1 has its mode; " +
				"1 pod isn't captured, so it takes plain text: shop/legacy",
		},
		"one isn't captured": {
			ingest.Modes{Pods: 1, Nodes: 1, Done: 1, Uncaptured: legacy},
			"False", v1alpha1.PolicyReasonPodsNotCaptured,
			"enforced for 1 of 1 pod on 1 node; 1 pod isn't captured, so it takes plain text: shop/legacy" + probes,
		},
		"another goes before it at one": {
			ingest.Modes{Pods: 2, Nodes: 1, Done: 2, Overridden: 1},
			"True", v1alpha1.PolicyReasonEnforced,
			"enforced for 2 of 2 pods on 1 node; 1 pod has another mode than the policy says: a policy for fewer pods, " +
				"or a stricter one, goes before it" + probes,
		},
		"another goes before it everywhere": {
			ingest.Modes{Pods: 2, Nodes: 1, Done: 2, Overridden: 2},
			"False", v1alpha1.PolicyReasonOverridden,
			"enforced for 2 of 2 pods on 1 node; 2 pods have another mode than the policy says: a policy for fewer pods, " +
				"or a stricter one, goes before it" + probes,
		},
	} {
		t.Run(name, func(t *testing.T) {
			is, reason, text := modes(&c.modes)
			require.Equal(t, c.status, is)
			require.Equal(t, c.reason, reason)
			require.Equal(t, c.text, text)
		})
	}
}

// testModesOnARealAPIServer: a policy on modes says how far agents are, and takes it back when it isn't so any more.
func testModesOnARealAPIServer(t *testing.T, cfg *rest.Config) {
	s := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(s))
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	policy := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "strict"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Namespace"}},
			MTLS:       &v1alpha1.MTLSAuthentication{Mode: v1alpha1.MTLSModeStrict},
		},
	}
	require.NoError(t, c.Create(t.Context(), policy))
	w := NewEntries(c, newBook(), logr.Discard())
	go func() { _ = w.Start(t.Context()) }()
	ref := model.ObjectRef{Kind: "AuthenticationPolicy", Namespace: "bookshop", Name: "strict"}
	ancestor := gwv1.ParentReference{Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Namespace")), Name: "bookshop"}
	for _, step := range []struct {
		done   int
		status metav1.ConditionStatus
		reason string
	}{
		{1, "False", v1alpha1.PolicyReasonPending},
		{2, "True", v1alpha1.PolicyReasonEnforced},
		{1, "False", v1alpha1.PolicyReasonPending},
	} {
		w.Report(ref, &ingest.Report{Ref: ref, UID: policy.UID, Generation: 1, Parents: []ingest.ParentReport{{
			Ref: ancestor, Conditions: []metav1.Condition{{
				Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1,
			}},
			Enforcement: &ingest.Enforcement{Modes: &ingest.Modes{Pods: 2, Nodes: 1, Done: step.done}},
		}}})
		eventually.True(t, step.reason, func() bool {
			require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
			if len(policy.Status.Ancestors) == 0 {
				return false
			}
			e := meta.FindStatusCondition(policy.Status.Ancestors[0].Conditions, v1alpha1.PolicyConditionEnforced)
			return e != nil && e.Status == step.status && e.Reason == step.reason
		})
	}
}
