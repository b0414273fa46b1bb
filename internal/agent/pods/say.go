// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// worthNoting tells whether people who look at the agent want to see why a pod isn't captured.
func (f *Follower) worthNoting(pod *corev1.Pod, d member.Decision) bool {
	switch d.Reason {
	case v1alpha1.PodReasonOptedOut, v1alpha1.PodReasonProxy, v1alpha1.PodReasonReservedPort:
		return true
	default:
		return member.Condition(pod) != nil
	}
}

func (f *Follower) setStatus(pod *corev1.Pod, state State, d member.Decision, t enrol.Target) {
	s := Status{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		State: state, Reason: d.Reason, Message: d.Message, Netns: t.Pod.Netns, Identity: t.Pod.Identity,
	}
	if state != StateNotCaptured {
		s.Mode, s.Except, s.Closed = mode(d), d.Except, d.Closed
	}
	f.statuses.set(s)
}

func mode(d member.Decision) string {
	if d.Strict {
		return names.MTLSStrict
	}
	return names.MTLSPermissive
}

// warn of what a person should mend, once: when the pod's condition did not say it before.
func (f *Follower) warn(pod *corev1.Pod, d member.Decision) {
	if before := member.Condition(pod); d.Problem == "" || before != nil && strings.Contains(before.Message, d.Problem) {
		return
	}
	f.reports.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonUnknownLabel, "Capture", "%s", d.Problem)
}

// setCondition says PodConditionCaptured, and adds an Event where its status or reason changes: kubectl describe shows
// a condition without its message. A failure that goes on is told each time: Events are kept for an hour, as one with a
// count.
func (f *Follower) setCondition(
	ctx context.Context, pod *corev1.Pod, is corev1.ConditionStatus, reason, message string,
) error {
	if reason == v1alpha1.PodReasonCaptureFailed {
		f.reports.events.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Capture", "%s", conditions.Note(message))
	}
	before, after := member.Condition(pod), pod.DeepCopy()
	written, err := WriteCondition(ctx, f.client, after, v1alpha1.PodConditionCaptured, is, reason, message)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another pod of the same name: the watch says so soon
	}
	news := before == nil || before.Status != is || before.Reason != reason
	if written && news && reason != v1alpha1.PodReasonCaptureFailed {
		kind := corev1.EventTypeNormal
		if reason == v1alpha1.PodReasonReservedPort {
			kind = corev1.EventTypeWarning // nobody asked for it
		}
		f.reports.events.Eventf(after, nil, kind, reason, "Capture", "%s", conditions.Note(message))
	}
	return err
}
