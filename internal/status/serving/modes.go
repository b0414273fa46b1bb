// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// modes says how far agents are with a policy on plain text, by what they say on their pods.
func modes(m *ingest.Modes) (is metav1.ConditionStatus, reason, message string) {
	text := "enforced from the start for pods that come: there are none now"
	if m.Pods > 0 {
		text = fmt.Sprintf("enforced for %d of %s on %s", m.Done, many(m.Pods, "pod"), many(m.Nodes, "node"))
	}
	var others, uncaptured string
	if m.Overridden > 0 {
		others = plural(m.Overridden, "pod has", "pods have") +
			" another mode than the policy says: a policy for fewer pods, or a stricter one, goes before it"
	}
	if n := len(m.Uncaptured); n > 0 {
		uncaptured = fmt.Sprintf("%s: %s",
			plural(n, "pod isn't captured, so it takes plain text", "pods aren't captured, so they take plain text"),
			list(m.Uncaptured, types.NamespacedName.String))
	}
	is = metav1.ConditionFalse
	switch {
	case m.Done < m.Pods:
		return is, v1alpha1.PolicyReasonPending, sentences(text, fmt.Sprintf(
			"the agent of node %s does not say yet that pod %s has its mode", m.Late.Node, m.Late.Pod), others, uncaptured)
	case m.Pods > 0 && m.Overridden == m.Pods:
		reason = v1alpha1.PolicyReasonOverridden
	case len(m.Uncaptured) > 0:
		reason = v1alpha1.PolicyReasonPodsNotCaptured
	default:
		is, reason = metav1.ConditionTrue, v1alpha1.PolicyReasonEnforced
	}
	return is, reason, sentences(text, others, uncaptured, "kubelet's probes are never refused")
}
