// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// maxMessage is the longest message that a condition and an event can carry here; the API's limits are 32768 and 1024.
const maxMessage = 1000

// conditionSet builds the conditions of one object, all of one generation.
type conditionSet struct {
	generation int64
	list       []metav1.Condition
}

func conditionsOf(o client.Object, current []metav1.Condition) *conditionSet {
	return &conditionSet{generation: o.GetGeneration(), list: slices.Clone(current)}
}

func (s *conditionSet) set(kind string, ok bool, reason, message string) {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	s.setStatus(kind, status, reason, message)
}

func (s *conditionSet) setStatus(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.list, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: shorten(message), ObservedGeneration: s.generation,
	})
}

func (s *conditionSet) isTrue(kind string) bool { return meta.IsStatusConditionTrue(s.list, kind) }

func shorten(s string) string {
	r := []rune(s)
	if len(r) <= maxMessage {
		return s
	}
	return string(r[:maxMessage-1]) + "…"
}

// announcer emits an Event when a condition turns to a reason that needs a person.
type announcer struct {
	recorder events.EventRecorder
	// reasons that need a person; others pass by themselves.
	reasons map[string]bool
}

func newAnnouncer(recorder events.EventRecorder, reasons ...string) announcer {
	a := announcer{recorder, map[string]bool{}}
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
		if now.Status != metav1.ConditionFalse || !a.reasons[now.Reason] || told[now.Reason] {
			continue
		}
		told[now.Reason] = true
		was := meta.FindStatusCondition(before, now.Type)
		if was != nil && was.Status == now.Status && was.Reason == now.Reason && was.Message == now.Message {
			continue
		}
		a.recorder.Eventf(o, nil, corev1.EventTypeWarning, now.Reason, "Reconcile", "%s", now.Message)
	}
}

// writeStatus updates the status of after unless it equals that of before, the object as read. A conflict is no error:
// the newer object is reconciled anyway.
func writeStatus(ctx context.Context, c client.Client, before, after client.Object) (reconcile.Result, error) {
	if equality.Semantic.DeepEqual(before, after) {
		return reconcile.Result{}, nil
	}
	err := c.Status().Update(ctx, after)
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictPause}, nil
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, err
}
