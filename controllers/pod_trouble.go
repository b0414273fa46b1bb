// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// podTrouble is why a pod of the mesh is not ready.
func podTrouble(pod *corev1.Pod) conditions.Trouble {
	return conditions.TroubleOf(pod, v1alpha1.PodConditionServing)
}

// waypointTroubles are why a waypoint's pods are not ready.
func waypointTroubles(pods []corev1.Pod) []conditions.Trouble {
	return conditions.TroublesOf(pods, v1alpha1.PodConditionServing)
}

// anyStuck tells whether a pod has a trouble that doesn't pass by itself.
func anyStuck(pods []corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(p corev1.Pod) bool { return podTrouble(&p).Stuck })
}
