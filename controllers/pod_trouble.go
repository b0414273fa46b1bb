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

// trouble is why a pod is not ready; empty if it is.
type trouble struct {
	why string
	// stuck: it doesn't pass by itself as far as anybody knows, other than that a pod starts or ends.
	stuck bool
}

func podTrouble(pod *corev1.Pod) trouble {
	if pod.DeletionTimestamp != nil {
		return trouble{why: "terminating"}
	}
	if c := conditions.OfPod(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return trouble{why: c.Reason + ": " + strings.TrimRight(c.Message, "."), stuck: true}
	}
	if c := conditions.OfPod(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return trouble{}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch w := s.State.Waiting; {
		case w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff"): // it turns from one to the other
			return trouble{why: strings.TrimSpace(s.Name + ": ImagePullBackOff " + s.Image), stuck: true}
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating":
			return trouble{why: s.Name + ": " + w.Reason, stuck: true}
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return trouble{why: fmt.Sprintf("%s: exit code %d", s.Name, s.State.Terminated.ExitCode), stuck: true}
		}
	}
	if c := conditions.OfPod(pod, v1alpha1.PodConditionServing); c != nil && c.Status == corev1.ConditionFalse {
		return trouble{why: strings.TrimSuffix(c.Message, ".")}
	}
	return trouble{why: podStarting}
}

// waypointTroubles says of a waypoint's pods why they are not ready, each cause once, those first that don't pass by
// themselves; a pod that starts or ends is no trouble.
func waypointTroubles(pods []corev1.Pod) []trouble {
	var out []trouble
	for i := range pods {
		t := podTrouble(&pods[i])
		if t.why != "" && t.why != podStarting && pods[i].DeletionTimestamp == nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b trouble) int {
		if a.stuck != b.stuck {
			if a.stuck {
				return -1
			}
			return 1
		}
		return strings.Compare(a.why, b.why)
	})
	return slices.Compact(out)
}

// anyStuck tells whether a pod has a trouble that doesn't pass by itself.
func anyStuck(pods []corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(p corev1.Pod) bool { return podTrouble(&p).stuck })
}
