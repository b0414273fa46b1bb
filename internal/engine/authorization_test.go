// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestGuardsGoToThePodsNode: a node's proxy is told who may come to its own pods, and nobody else's; of a pod that
// isn't in the mesh, or isn't at all, nothing, so that what waits for it stays closed.
func TestGuardsGoToThePodsNode(t *testing.T) {
	h := newHarness(t)
	h.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
	}})
	pod := func(name, node string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{}},
			Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "web"},
		}
	}
	plain := pod("plain", "n1")
	plain.Labels[names.LabelMesh] = names.MeshDisabled
	for _, p := range []*corev1.Pod{pod("web-0", "n1"), pod("web-1", "n1"), plain, pod("late", "")} {
		h.Set(p)
	}
	h.Synced()
	has := func(scope xds.Scope, name string) bool {
		k := scope.Key(xds.TypeExtension, name)
		h.Interest(xds.Interest{Key: k, Wanted: true})
		h.process()
		r, _ := h.cache.Get(k)
		if r != nil {
			require.Equal(t, name, as[*corev3.TypedExtensionConfig](t, r).GetName())
		}
		return r != nil
	}
	n1, n2 := catalogue.NodeScope("n1"), catalogue.NodeScope("n2")
	for _, name := range []string{"web-0", "web-1"} {
		require.True(t, has(n1, names.PodAuthorization("shop", name)))
		require.False(t, has(n2, names.PodAuthorization("shop", name)), "another node's")
	}
	for _, name := range []string{"plain", "late", "none"} {
		require.False(t, has(n1, names.PodAuthorization("shop", name)), name)
	}
	require.False(t, has("waypoint/shop/fairway-waypoint", names.PodAuthorization("shop", "web-0")))
	require.False(t, has(catalogue.NodeScope(""), names.PodAuthorization("shop", "late")), "of a pod without a node")

	// The name goes on as another pod, elsewhere.
	h.Set(pod("web-1", "n2"))
	h.process()
	require.True(t, has(n2, names.PodAuthorization("shop", "web-1")))
	require.False(t, has(n1, names.PodAuthorization("shop", "web-1")))
}

// BenchmarkGuards edits one of a namespace's policies, which are for all of its pods, or for those of one workload.
func BenchmarkGuards(b *testing.B) {
	for _, of := range []struct{ pods, policies, workloads int }{{50, 10, 1}, {5_000, 10, 1}, {5_000, 1_000, 100}} {
		b.Run(fmt.Sprintf("%d pods, %d policies, %d workloads", of.pods, of.policies, of.workloads), func(b *testing.B) {
			h := newHarness(b)
			h.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
			}})
			policy := func(n, edit int) *v1alpha1.AuthorizationPolicy {
				p := twentyAccounts(n, edit)
				p.Spec.TargetRefs[0].Selector.MatchLabels = map[string]string{"app": fmt.Sprint(n % of.workloads)}
				return p
			}
			for n := range of.policies {
				h.Set(policy(n, 0))
			}
			scope := catalogue.NodeScope("n1")
			for n := range of.pods {
				p := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: "shop", Name: fmt.Sprint("web-", n), Labels: map[string]string{"app": fmt.Sprint(n % of.workloads)},
					},
					Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "web"},
				}
				h.Set(p)
				k := scope.Key(xds.TypeExtension, names.PodAuthorization("shop", p.Name))
				h.Interest(xds.Interest{Key: k, Wanted: true})
			}
			h.Synced()
			h.process()
			k := scope.Key(xds.TypeExtension, names.PodAuthorization("shop", "web-0"))
			before, _ := h.cache.Get(k)
			require.NotNil(b, before)
			edits := 0
			for b.Loop() {
				edits++
				h.Set(policy(0, edits))
				h.process()
			}
			after, _ := h.cache.Get(k)
			require.NotEqual(b, before.Version(), after.Version())
			b.ReportMetric(float64(len(after.Any().GetValue())), "bytes/pod")
		})
	}
}

// twentyAccounts may connect to the pods of a namespace.
func twentyAccounts(n, edit int) *v1alpha1.AuthorizationPolicy {
	p := &v1alpha1.AuthorizationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("policy-", n), Generation: int64(edit + 1)},
		Spec: v1alpha1.AuthorizationPolicySpec{
			TargetRefs:       []v1alpha1.AuthorizationTarget{{Kind: "Pod", Selector: &metav1.LabelSelector{}}},
			EnforcementLevel: v1alpha1.EnforcementLevelNetwork, Action: v1alpha1.ActionAllow,
		},
	}
	r := v1alpha1.AuthorizationRule{NetworkAttributes: &v1alpha1.AuthorizationNetworkAttributes{
		Ports: []gwv1.PortNumber{8080, gwv1.PortNumber(9000 + edit%1000)},
	}}
	for account := range 20 {
		r.Sources = append(r.Sources, v1alpha1.AuthorizationSource{
			Type: v1alpha1.AuthorizationSourceTypeServiceAccount,
			ServiceAccount: &v1alpha1.AuthorizationServiceAccount{
				Name: fmt.Sprintf("account-%d-%d", n, account),
			},
		})
	}
	p.Spec.Rules = []v1alpha1.AuthorizationRule{r}
	return p
}
