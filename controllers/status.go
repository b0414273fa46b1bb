// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/status"
)

// conflictPause is how soon a status is written again that somebody else wrote meanwhile.
const conflictPause = 20 * time.Millisecond

// announcer emits an Event when a condition turns to a reason that needs a person, and when the one that sums the
// object up turns True.
type announcer struct {
	recorder events.EventRecorder
	// sum is the type of the condition that sums the object up.
	sum string
	// reasons that need a person; others pass by themselves.
	reasons map[string]bool
}

func newAnnouncer(recorder events.EventRecorder, sum string, reasons ...string) announcer {
	a := announcer{recorder, sum, map[string]bool{}}
	for _, r := range reasons {
		a.reasons[r] = true
	}
	return a
}

// announce compares conditions. One reason makes one Event, though a condition that sums others up repeats it.
func (a announcer) announce(o client.Object, before, after []metav1.Condition) {
	told := map[string]bool{}
	for i := range after {
		now := &after[i]
		if now.Type == a.sum && now.Status == metav1.ConditionTrue && !meta.IsStatusConditionTrue(before, a.sum) {
			a.recorder.Eventf(o, nil, corev1.EventTypeNormal, now.Reason, "Reconcile", "%s", conditions.Note(now.Message))
		}
		if now.Status != metav1.ConditionFalse || !a.reasons[now.Reason] || told[now.Reason] {
			continue
		}
		told[now.Reason] = true
		was := meta.FindStatusCondition(before, now.Type)
		if was != nil && was.Status == now.Status && was.Reason == now.Reason && was.Message == now.Message {
			continue
		}
		a.warn(o, now.Reason, "Reconcile", now.Message)
	}
}

func (a announcer) warn(o client.Object, reason, action, text string) {
	a.recorder.Eventf(o, nil, corev1.EventTypeWarning, reason, action, "%s", conditions.Note(text))
}

// writeStatus brings the status of an object, as read, to what render makes of it, and announces what turned bad. The
// object is to be reconciled again after a while, zero for never: a status that somebody wrote meanwhile is no error.
func writeStatus[T client.Object](
	ctx context.Context, c client.Client, a announcer, obj T, of func(T) []metav1.Condition, render func(T) status.Plan,
) (again time.Duration, err error) {
	before := slices.Clone(of(obj))
	_, plan, err := status.Write(ctx, c, obj, render)
	switch {
	case apierrors.IsConflict(err):
		return conflictPause, nil
	case err == nil:
		a.announce(obj, before, of(obj))
	}
	return plan.Again, client.IgnoreNotFound(err)
}
