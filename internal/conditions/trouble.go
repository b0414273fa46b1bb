// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// podStarting is the trouble of a pod of which nothing else is known.
const podStarting = "starting"

// Trouble is why a pod is not ready; empty if it is.
type Trouble struct {
	Why string
	// Stuck: it doesn't pass by itself as far as anybody knows, other than that a pod starts or ends.
	Stuck bool
}

// TroubleOf a pod. gate is the condition of a readiness gate whose message says more than that it isn't met.
func TroubleOf(pod *corev1.Pod, gate corev1.PodConditionType) Trouble {
	if pod.DeletionTimestamp != nil {
		return Trouble{Why: "terminating"}
	}
	if c := OfPod(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return Trouble{Why: c.Reason + ": " + strings.TrimRight(c.Message, "."), Stuck: true}
	}
	if c := OfPod(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return Trouble{}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch w := s.State.Waiting; {
		case w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff"): // it turns from one to the other
			return Trouble{Why: strings.TrimSpace(s.Name + ": ImagePullBackOff " + s.Image), Stuck: true}
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating":
			return Trouble{Why: s.Name + ": " + w.Reason, Stuck: true}
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return Trouble{Why: fmt.Sprintf("%s: exit code %d", s.Name, s.State.Terminated.ExitCode), Stuck: true}
		}
	}
	if c := OfPod(pod, gate); c != nil && c.Status == corev1.ConditionFalse {
		return Trouble{Why: strings.TrimSuffix(c.Message, ".")}
	}
	return Trouble{Why: podStarting}
}

// TroublesOf pods that do the same, each cause once, those first that don't pass by themselves; a pod that starts or
// ends is no trouble.
func TroublesOf(pods []corev1.Pod, gate corev1.PodConditionType) []Trouble {
	var out []Trouble
	for i := range pods {
		t := TroubleOf(&pods[i], gate)
		if t.Why != "" && t.Why != podStarting && pods[i].DeletionTimestamp == nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Trouble) int {
		if a.Stuck != b.Stuck {
			if a.Stuck {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Why, b.Why)
	})
	return slices.Compact(out)
}
