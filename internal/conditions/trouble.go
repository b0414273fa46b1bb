// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// PodStarting is the trouble of a pod of which nothing else is known.
	PodStarting = "starting"
	// PodTerminating is that of one that ends.
	PodTerminating = "terminating"
)

// PodTrouble says why a pod is not ready; empty if it is. gate is the condition of a readiness gate that says more in
// its message than that it isn't met.
func PodTrouble(pod *corev1.Pod, gate corev1.PodConditionType) string {
	if pod.DeletionTimestamp != nil {
		return PodTerminating
	}
	if c := OfPod(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return c.Reason + ": " + c.Message
	}
	if c := OfPod(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
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
	if c := OfPod(pod, gate); c != nil && c.Status == corev1.ConditionFalse {
		return strings.TrimSuffix(c.Message, ".")
	}
	return PodStarting
}

// PodTroubles says of pods that do the same why they are not ready, each cause once; a pod that starts or ends is no
// trouble.
func PodTroubles(pods []corev1.Pod, gate corev1.PodConditionType) []string {
	var out []string
	for i := range pods {
		if why := PodTrouble(&pods[i], gate); why != "" && why != PodStarting && why != PodTerminating {
			out = append(out, why)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
