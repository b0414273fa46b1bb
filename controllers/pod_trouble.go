// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// podTrouble says why a pod is not ready; empty if it is.
func podTrouble(pod *corev1.Pod) string {
	return conditions.PodTrouble(pod, v1alpha1.PodConditionServing)
}

// waypointTroubles says of a waypoint's pods why they are not ready, each cause once; a pod that starts or ends is no
// trouble.
func waypointTroubles(pods []corev1.Pod) []string {
	return conditions.PodTroubles(pods, v1alpha1.PodConditionServing)
}
