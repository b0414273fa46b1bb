// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// maxMessage bounds a condition's message, in bytes.
const maxMessage = 1024

func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// capturedPatch is the conditionPatch of ConditionCaptured.
func capturedPatch(pod *corev1.Pod, status corev1.ConditionStatus, reason, message string) ([]byte, error) {
	return conditionPatch(pod, corev1.PodCondition{Type: v1alpha1.PodConditionCaptured, Status: status, Reason: reason, Message: message})
}

// conditionPatch is the strategic merge patch of pods/status that sets a condition and nothing else; nil if the pod has
// it so already. The UID in it keeps it off a later pod of the same name.
func conditionPatch(pod *corev1.Pod, want corev1.PodCondition) ([]byte, error) {
	want.LastTransitionTime = metav1.Now()
	want.Message = strings.ToValidUTF8(want.Message[:min(len(want.Message), maxMessage)], "")
	if have := conditionOf(pod, want.Type); have != nil {
		if have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
			return nil, nil
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   map[string]any{"conditions": []any{slim(want)}},
	})
	if err != nil {
		return nil, fmt.Errorf("condition patch: %w", err)
	}
	return patch, nil
}

// slim leaves out the fields of a condition that we don't set: a patch with a null would clear them.
func slim(c corev1.PodCondition) map[string]any {
	return map[string]any{
		"type": c.Type, "status": c.Status, "reason": c.Reason, "message": c.Message, "lastTransitionTime": c.LastTransitionTime,
	}
}
