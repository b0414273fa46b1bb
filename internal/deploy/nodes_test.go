// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
)

// TestNodesFor: two proxies where two nodes may run them, and only there; a node that is away for a while counts.
func TestNodesFor(t *testing.T) {
	node := func(os, pool string, taints ...corev1.Taint) corev1.Node {
		labels := map[string]string{corev1.LabelOSStable: os, "pool": pool}
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}
	}
	taint := func(key string, effect corev1.TaintEffect) corev1.Taint {
		return corev1.Taint{Key: key, Effect: effect}
	}
	plain := node("linux", "a")
	for name, tc := range map[string]struct {
		nodes      []corev1.Node
		parameters v1alpha1.ProxyParametersSpec
		count      int
		least      int32
	}{
		"none":        {nil, v1alpha1.ProxyParametersSpec{}, 0, 1},
		"one":         {[]corev1.Node{plain}, v1alpha1.ProxyParametersSpec{}, 1, 1},
		"two":         {[]corev1.Node{plain, plain}, v1alpha1.ProxyParametersSpec{}, 2, 2},
		"three":       {[]corev1.Node{plain, plain, plain}, v1alpha1.ProxyParametersSpec{}, 3, 2},
		"not Windows": {[]corev1.Node{plain, node("windows", "a")}, v1alpha1.ProxyParametersSpec{}, 1, 1},
		"by the node selector": {
			[]corev1.Node{plain, node("linux", "b")},
			v1alpha1.ProxyParametersSpec{NodeSelector: map[string]string{"pool": "b"}},
			1, 1,
		},
		"not a control plane": {
			[]corev1.Node{
				plain, node("linux", "a", taint("node-role.kubernetes.io/control-plane", corev1.TaintEffectNoSchedule)),
			},
			v1alpha1.ProxyParametersSpec{},
			1, 1,
		},
		"one that is tolerated": {
			[]corev1.Node{plain, node("linux", "a", taint("dedicated", corev1.TaintEffectNoExecute))},
			v1alpha1.ProxyParametersSpec{Tolerations: []corev1.Toleration{
				{Key: "dedicated", Operator: corev1.TolerationOpExists},
			}},
			2, 2,
		},
		"one that is avoided": {
			[]corev1.Node{plain, node("linux", "a", taint("slow", corev1.TaintEffectPreferNoSchedule))},
			v1alpha1.ProxyParametersSpec{},
			2, 2,
		},
		"cordoned, and not ready": {
			[]corev1.Node{
				node("linux", "a", taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)),
				node("linux", "a", taint(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)),
			},
			v1alpha1.ProxyParametersSpec{},
			2, 2,
		},
		"as the parameters say": {
			[]corev1.Node{plain, plain},
			v1alpha1.ProxyParametersSpec{Autoscaling: &v1alpha1.Autoscaling{MaxReplicas: 5}},
			2, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			count := deploy.NodesFor(tc.nodes, tc.parameters)
			require.Equal(t, tc.count, count)
			require.Equal(t, tc.least, deploy.Waypoint{Parameters: tc.parameters, Nodes: count}.MinReplicas())
		})
	}
}
