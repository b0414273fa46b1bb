// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Refused claims to an address are told when they come and when they go, and nothing of an address stays that nobody
// claims.
func TestRefusedClaimsAreTold(t *testing.T) {
	refused := map[string][]string{}
	e := New(Options{Cache: xds.NewCache(), OnRefused: func(a netip.Addr, claims []ingest.RefusedClaim) {
		refused[a.String()] = nil
		for _, c := range claims {
			refused[a.String()] = append(refused[a.String()], c.Pod.Name)
		}
	}})
	pod := func(name, node, ip string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: name},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}},
				Conditions: []corev1.PodCondition{{Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue}},
			},
		}
	}
	e.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}})
	e.Synced()
	victim := pod("victim", "n1", "10.1.0.5")
	e.Set(victim)
	e.process()
	e.Set(pod("a-thief", "n2", "10.1.0.5"))
	e.process()
	require.Equal(t, map[string][]string{"10.1.0.5": {"a-thief"}}, refused)

	e.Set(pod("a-thief", "n2", "10.2.0.5"))
	e.process()
	require.Equal(t, map[string][]string{"10.1.0.5": nil, "10.2.0.5": nil}, refused)
	e.Delete(victim)
	e.process()
	require.False(t, e.ingest.Claims.Watched(netip.MustParseAddr("10.1.0.5")))
	require.True(t, e.ingest.Claims.Watched(netip.MustParseAddr("10.2.0.5")))
}
