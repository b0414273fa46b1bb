// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// TestPlacementChanged: waypoints are looked at for what decides where their proxies may run, and not whenever
// Kubernetes, or an autoscaler that considers a node, says how it is.
func TestPlacementChanged(t *testing.T) {
	node := func(label string, taints ...corev1.Taint) *corev1.Node {
		n := &corev1.Node{Spec: corev1.NodeSpec{Taints: taints}}
		n.Labels = map[string]string{"pool": label}
		return n
	}
	taint := func(key string, effect corev1.TaintEffect) corev1.Taint {
		return corev1.Taint{Key: key, Effect: effect}
	}
	plain := node("a")
	for name, tc := range map[string]struct {
		now     *corev1.Node
		changed bool
	}{
		"nothing":  {plain, false},
		"a label":  {node("b"), true},
		"a taint":  {node("a", taint("dedicated", corev1.TaintEffectNoSchedule)), true},
		"a wish":   {node("a", taint("slow", corev1.TaintEffectPreferNoSchedule)), false},
		"cordoned": {node("a", taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)), false},
		"away":     {node("a", taint(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)), false},
	} {
		require.Equal(t, tc.changed, placementChanged().Update(event.UpdateEvent{ObjectOld: plain, ObjectNew: tc.now}), name)
		require.Equal(t, tc.changed, placementChanged().Update(event.UpdateEvent{ObjectOld: tc.now, ObjectNew: plain}), name)
	}
}
