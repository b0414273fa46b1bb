// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

func accessPolicyOf(generation int64, sources ...string) *v1alpha1.AuthorizationPolicy {
	out := &v1alpha1.AuthorizationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "some", Generation: generation},
		Spec: v1alpha1.AuthorizationPolicySpec{
			EnforcementLevel: v1alpha1.EnforcementLevelNetwork, Action: v1alpha1.ActionAllow,
			TargetRefs: []v1alpha1.AuthorizationTarget{{Kind: "Pod", Selector: &metav1.LabelSelector{
				MatchLabels: map[string]string{"app": "a"},
			}}},
			Rules: []v1alpha1.AuthorizationRule{{Sources: []v1alpha1.AuthorizationSource{}}},
		},
	}
	for _, name := range sources {
		out.Spec.Rules[0].Sources = append(out.Spec.Rules[0].Sources, v1alpha1.AuthorizationSource{
			Type:           v1alpha1.AuthorizationSourceTypeServiceAccount,
			ServiceAccount: &v1alpha1.AuthorizationServiceAccount{Name: name},
		})
	}
	return out
}

func workloadPod(app string, n int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprint(app, n),
			Labels: map[string]string{"app": app, "apps.kubernetes.io/pod-index": fmt.Sprint(n)},
		},
		Spec: corev1.PodSpec{ServiceAccountName: app},
	}
}

// guardedWorld has a namespace with 100 pods of two workloads each, whose guards are followed; told counts those that
// changed.
func guardedWorld(t *testing.T) (w *world, told *int) {
	w, told = newWorld(), new(int)
	w.set(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
	}}, accessPolicyOf(1, "x", "y"))
	for n := range 100 {
		for _, app := range []string{"a", "b"} {
			pod := workloadPod(app, n)
			w.set(t, pod)
			w.in.PodGuard.Watch(cluster.Key{Namespace: "shop", Name: pod.Name}, func(*model.PodGuard) { *told++ })
		}
	}
	for n := range 20 {
		other := accessPolicyOf(1)
		other.Name, other.Spec.TargetRefs[0].Selector.MatchLabels["app"] = fmt.Sprint("other", n), "other"
		w.set(t, other)
		w.in.accessTargetsOf.Watch(cluster.Key{Namespace: "shop", Name: other.Name}, func([]AccessTarget) {})
	}
	w.graph.Flush()
	require.Equal(t, 200, *told)
	return w, told
}

// TestGuardsCostWhatChanges: an edit of rules asks no pod again whether it is meant, and pods of a workload have one
// guard in common.
func TestGuardsCostWhatChanges(t *testing.T) {
	w, told := guardedWorld(t)
	// What is read for a policy and for the list of those in its namespace; and for that of pods, once for all policies.
	const ofPolicy, ofPods = 100, 500
	change := func(what string, toldNow, most int, do func()) {
		read := w.graph.Reads
		*told = 0
		do()
		w.graph.Flush()
		require.Equal(t, toldNow, *told, what)
		require.LessOrEqual(t, int(w.graph.Reads-read), most, what)
	}
	// Another edition, though nothing changes in effect.
	change("the order of sources", 100, ofPolicy+300, func() { w.set(t, accessPolicyOf(2, "y", "x", "x")) })
	change("a source", 100, ofPolicy+300, func() { w.set(t, accessPolicyOf(3, "y")) })
	change("a pod that nobody asks for", 0, ofPods, func() { w.set(t, workloadPod("a", 100)) })
	change("a pod", 1, ofPods, func() { w.delete(t, workloadPod("a", 7)) })

	a := func(n int) *model.PodGuard {
		return w.in.PodGuard.Get(nil, cluster.Key{Namespace: "shop", Name: fmt.Sprint("a", n)})
	}
	require.Same(t, a(1), a(2))
	y := []model.AccessSource{{Identity: "spiffe://cluster.local/ns/shop/sa/y"}}
	require.Equal(t, y, a(1).Network[0].Rules[0].Sources)
	require.Nil(t, a(7))
}

// TestPodsAreGuardedAnew when their labels change.
func TestPodsAreGuardedAnew(t *testing.T) {
	w, told := guardedWorld(t)
	pod := workloadPod("a", 1)
	pod.Labels = map[string]string{"app": "c"}
	*told = 0
	w.set(t, pod)
	w.graph.Flush()
	require.Equal(t, 1, *told)
	require.Equal(t, &model.PodGuard{}, w.in.PodGuard.Get(nil, cluster.Key{Namespace: "shop", Name: pod.Name}))
}

// TestRulesAreKnownWhateverGuardsThem: proxies reject what a rule does, and policies come and go.
func TestRulesAreKnownWhateverGuardsThem(t *testing.T) {
	rule := model.Rule{Backends: []model.Backend{{Weight: 1}}}
	key := RuleKey(rule)
	rule.Backends[0].Guards = []model.Guard{{DefaultDeny: true}}
	require.Equal(t, key, RuleKey(rule))
	require.NotEmpty(t, rule.Backends[0].Guards)
}
