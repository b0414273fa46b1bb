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
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestGuardsGoToThePodsNode: a node's proxy is told who may come to its own pods, and nobody else's; of a pod that
// isn't in the mesh, or isn't at all, nothing, so that what waits for it stays closed.
func TestGuardsGoToThePodsNode(t *testing.T) {
	h := newHarness(t)
	members := map[string]bool{"web-0": true, "web-1": true}
	guard := &model.PodGuard{Only: []uint16{80}}
	h.resources.podGuard = func(_ *memo.Ctx, pod cluster.Key) *model.PodGuard {
		if members[pod.Name] {
			return guard
		}
		return nil
	}
	pod := func(name, node string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{NodeName: node},
		}
	}
	for _, p := range []*corev1.Pod{pod("web-0", "n1"), pod("web-1", "n1"), pod("plain", "n1"), pod("late", "")} {
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

// BenchmarkGuards makes the guards of a namespace's pods anew, ten policies each, as an edit of one does: all have the
// same guard, or (distinct) each its own.
func BenchmarkGuards(b *testing.B) {
	for _, pods := range []int{50, 5_000} {
		for _, distinct := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d pods, distinct %v", pods, distinct), func(b *testing.B) {
				h := newHarness(b)
				edits := 0
				guard := tenPolicies(edits)
				h.resources.podGuard = func(ctx *memo.Ctx, pod cluster.Key) *model.PodGuard {
					h.store.Namespaces.Get(ctx, types.NamespacedName{Name: "shop"}) // what an edit changes
					if !distinct {
						return guard
					}
					own := *guard
					return &own
				}
				scope := catalogue.NodeScope("n1")
				for n := range pods {
					name := fmt.Sprint("web-", n)
					h.Set(&corev1.Pod{
						ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{NodeName: "n1"},
					})
					k := scope.Key(xds.TypeExtension, names.PodAuthorization("shop", name))
					h.Interest(xds.Interest{Key: k, Wanted: true})
				}
				h.Synced()
				h.process()
				for b.Loop() {
					edits++
					guard = tenPolicies(edits)
					h.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: int64(edits)}})
					h.process()
				}
			})
		}
	}
}

// tenPolicies that let in twenty accounts each, but for the first, which refuses as many.
func tenPolicies(edit int) *model.PodGuard {
	g := &model.PodGuard{}
	for n := range 10 {
		p := model.AccessPolicy{
			Name: types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("policy-", n)}, Deny: n == 0,
			Rules: []model.AccessRule{{Ports: []uint16{8080, uint16(9000 + edit%1000)}}},
		}
		for account := range 20 {
			p.Rules[0].Sources = append(p.Rules[0].Sources, model.AccessSource{
				Identity: names.SPIFFEID("cluster.local", "consumers", fmt.Sprintf("account-%d-%d", n, account)),
			})
		}
		g.Network = append(g.Network, p)
	}
	return g
}
