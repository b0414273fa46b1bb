// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/status"
)

// WriteCondition writes a condition of a pod, unless the pod has it so already; it tells whether it had to.
func WriteCondition(
	ctx context.Context, c client.Client, pod *corev1.Pod,
	kind corev1.PodConditionType, is corev1.ConditionStatus, reason, message string,
) (written bool, err error) {
	written, _, err = status.Write(ctx, c, pod, func(p *corev1.Pod) status.Plan {
		conditions.SetOfPod(p, kind, is, reason, message)
		return status.Plan{}
	})
	if err != nil {
		return false, fmt.Errorf("set condition %s: %w", kind, err)
	}
	return written, nil
}
