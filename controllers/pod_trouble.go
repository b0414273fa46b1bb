// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// podStarting is the trouble of a pod of which nothing else is known.
const podStarting = "starting"

// podTrouble says why a pod is not ready; empty if it is.
func podTrouble(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return "terminating"
	}
	if c := conditions.OfPod(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return c.Reason + ": " + c.Message
	}
	if c := conditions.OfPod(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return ""
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch w := s.State.Waiting; {
		case w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff"): // it turns from one to the other
			return strings.TrimSpace(s.Name + ": ImagePullBackOff " + s.Image)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating":
			return s.Name + ": " + w.Reason
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return fmt.Sprintf("%s: exit code %d", s.Name, s.State.Terminated.ExitCode)
		}
	}
	if c := conditions.OfPod(pod, v1alpha1.PodConditionServing); c != nil && c.Status == corev1.ConditionFalse {
		return strings.TrimSuffix(c.Message, ".")
	}
	return podStarting
}

// waypointTroubles says of a waypoint's pods why they are not ready, each cause once; a pod that starts or ends is no
// trouble.
func waypointTroubles(pods []corev1.Pod) []string {
	var out []string
	for i := range pods {
		if why := podTrouble(&pods[i]); why != "" && why != podStarting && pods[i].DeletionTimestamp == nil {
			out = append(out, why)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
