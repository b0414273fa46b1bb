// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package status is the only writer of statuses: those of routes, Services, Gateways, classes, the Mesh and pods. What
// a status is to say is decided elsewhere; this package sees to it that it is written, once, and that what others wrote
// stays.
//
// Write writes the status of an object that was read, for reconcilers and agents, which have queues of their own; a
// Writer has one, and reports in hand. Both write nothing that is there already, and a conflict ends in another look at
// the object.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Plan is what rendering decides besides what the status is to say.
type Plan struct {
	// Wait: nothing is to be written now.
	Wait bool
	// Again is after what time to render again though nothing changed; zero: not before something does.
	Again time.Duration
}

// Sooner is the plan with another look after a while, if that is sooner; zero is never.
func (p Plan) Sooner(after time.Duration) Plan {
	if after > 0 && (p.Again == 0 || after < p.Again) {
		p.Again = after
	}
	return p
}

// Write brings the status of an object, as read, to what render makes of it, and tells whether that took a write.
// render changes nothing but the status.
func Write[T client.Object](
	ctx context.Context, c client.Client, obj T, render func(T) Plan,
) (changed bool, p Plan, err error) {
	before := obj.DeepCopyObject()
	p = render(obj)
	if p.Wait || equality.Semantic.DeepEqual(before, obj) {
		return false, p, nil
	}
	return true, p, send(ctx, c, before, obj)
}

// send writes a status. Pods and Services have other writers besides, and the API server merges their conditions by
// type: of these only the conditions that changed are sent, for this object alone (its UID), and nobody is in anybody's
// way. Other statuses are sent whole, and refused with a conflict if somebody wrote meanwhile.
func send(ctx context.Context, c client.Client, before any, after client.Object) error {
	old, merged := conditionsOf(before)
	if !merged {
		return c.Status().Update(ctx, after)
	}
	now, _ := conditionsOf(after)
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": after.GetUID()},
		"status":   map[string]any{"conditions": difference(old, now)},
	})
	if err != nil {
		return fmt.Errorf("patch of conditions: %w", err)
	}
	return c.Status().Patch(ctx, after, client.RawPatch(types.StrategicMergePatchType, patch))
}

// conditionsOf are those of an object whose conditions the API server merges.
func conditionsOf(o any) (list []metav1.Condition, merged bool) {
	switch o := o.(type) {
	case *corev1.Service:
		return o.Status.Conditions, true
	case *corev1.Pod:
		for _, c := range o.Status.Conditions {
			list = append(list, metav1.Condition{
				Type: string(c.Type), Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			})
		}
		return list, true
	}
	return nil, false
}

// difference lists the conditions to send. Fields that we don't set are left out: a null would clear them.
func difference(old, now []metav1.Condition) []any {
	out := []any{}
	for _, c := range now {
		if was := meta.FindStatusCondition(old, c.Type); was == nil || !equality.Semantic.DeepEqual(*was, c) {
			out = append(out, map[string]any{
				"type": c.Type, "status": c.Status, "reason": c.Reason, "message": c.Message,
				"lastTransitionTime": c.LastTransitionTime,
			})
		}
	}
	for _, c := range old {
		if meta.FindStatusCondition(now, c.Type) == nil {
			out = append(out, map[string]any{"$patch": "delete", "type": c.Type})
		}
	}
	return out
}
