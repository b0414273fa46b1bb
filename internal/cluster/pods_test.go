// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// TestPodsAreTheSame: what an agent says of a pod's mode is something else, and so statuses of policies follow; what
// kubelet says isn't.
func TestPodsAreTheSame(t *testing.T) {
	says := func(kind corev1.PodConditionType, is corev1.ConditionStatus, message string) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: kind, Status: is, Message: message,
		}}}}
	}
	captured := says(v1alpha1.PodConditionCaptured, corev1.ConditionTrue, "permissive")
	require.True(t, samePod(captured, captured.DeepCopy()))
	require.False(t, samePod(captured, says(v1alpha1.PodConditionCaptured, corev1.ConditionTrue, "strict")))
	require.False(t, samePod(captured, says(v1alpha1.PodConditionCaptured, corev1.ConditionFalse, "permissive")))
	ready := says(corev1.PodReady, corev1.ConditionTrue, "a")
	require.True(t, samePod(ready, says(corev1.PodReady, corev1.ConditionFalse, "b")))
}
