// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// NodesFor counts the nodes that may run a waypoint with the parameters: by its node selector and tolerations. What
// Kubernetes itself says of a node for a while (it isn't ready, it is cordoned) doesn't matter: a waypoint needs its
// proxies elsewhere most when one of its nodes goes. Nor does affinity, which the scheduler alone understands: who sets
// it, sets the number of proxies as well.
func NodesFor(nodes []corev1.Node, p v1alpha1.ProxyParametersSpec) int {
	selector := labels.SelectorFromSet(nodeSelector(p))
	count := 0
	for i := range nodes {
		if n := &nodes[i]; selector.Matches(labels.Set(n.Labels)) && tolerated(PlacingTaints(n), p.Tolerations) {
			count++
		}
	}
	return count
}

// nodeSelector of a waypoint's pods.
func nodeSelector(p v1alpha1.ProxyParametersSpec) map[string]string {
	return merged(map[string]string{corev1.LabelOSStable: "linux"}, p.NodeSelector)
}

func tolerated(taints []corev1.Taint, tolerations []corev1.Toleration) bool {
	return !slices.ContainsFunc(taints, func(t corev1.Taint) bool {
		return !slices.ContainsFunc(tolerations, func(by corev1.Toleration) bool {
			return by.ToleratesTaint(klog.Background(), &t, true)
		})
	})
}

// PlacingTaints are those that NodesFor goes by: they keep pods away, and aren't how Kubernetes says what state a node
// is in.
func PlacingTaints(n *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectPreferNoSchedule || strings.HasPrefix(t.Key, "node.kubernetes.io/")
	})
}
