// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// How many entries the Gateway API has room for.
const (
	maxParents   = 32 // RouteStatus.parents
	maxAncestors = 16 // PolicyStatus.ancestors
	maxUsers     = 32 // BackendStatus.ancestors
)

// maxMessages is how many bytes the messages of our entries of a status may have in all. An object has room for 1.5 MB,
// of which others need theirs; with more, nothing of the status could be written.
const maxMessages = 512 << 10

// entry is what RouteParentStatus and PolicyAncestorStatus are alike in: one controller's word on one object that a
// route or a policy refers to.
type entry struct {
	ref        gwv1.ParentReference
	controller gwv1.GatewayController
	conditions []metav1.Condition
}

// MergeParents puts what a controller says of a route's parents into its status. See merge.
func MergeParents(old, ours []gwv1.RouteParentStatus, by gwv1.GatewayController) []gwv1.RouteParentStatus {
	from := func(p gwv1.RouteParentStatus) entry { return entry{p.ParentRef, p.ControllerName, p.Conditions} }
	to := func(e entry) gwv1.RouteParentStatus {
		return gwv1.RouteParentStatus{ParentRef: e.ref, ControllerName: e.controller, Conditions: e.conditions}
	}
	return convert(merge(convert(old, from), convert(ours, from), by, maxParents), to)
}

// MergeAncestors puts what a controller says of the ancestors that a policy affects into its status. See merge. A
// policy whose status has no room for an ancestor can't be implemented there, says the API.
func MergeAncestors(old, ours []gwv1.PolicyAncestorStatus, by gwv1.GatewayController) []gwv1.PolicyAncestorStatus {
	from := func(p gwv1.PolicyAncestorStatus) entry { return entry{p.AncestorRef, p.ControllerName, p.Conditions} }
	to := func(e entry) gwv1.PolicyAncestorStatus {
		return gwv1.PolicyAncestorStatus{AncestorRef: e.ref, ControllerName: e.controller, Conditions: e.conditions}
	}
	return convert(merge(convert(old, from), convert(ours, from), by, maxAncestors), to)
}

// MergeUsers puts what a controller says of what uses an XBackend into its status. See merge.
func MergeUsers(
	old []gwxv1alpha1.BackendAncestorStatus, ours []gwv1.RouteParentStatus, by gwv1.GatewayController,
) []gwxv1alpha1.BackendAncestorStatus {
	from := func(p gwv1.RouteParentStatus) entry { return entry{p.ParentRef, p.ControllerName, p.Conditions} }
	to := func(e entry) gwxv1alpha1.BackendAncestorStatus {
		return gwxv1alpha1.BackendAncestorStatus{AncestorRef: e.ref, ControllerName: e.controller, Conditions: e.conditions}
	}
	return convert(merge(convert(UsersAsParents(old), from), convert(ours, from), by, maxUsers), to)
}

// UsersAsParents are entries of an XBackend's status as if they were a route's, which they are alike but for names.
func UsersAsParents(users []gwxv1alpha1.BackendAncestorStatus) []gwv1.RouteParentStatus {
	return convert(users, func(a gwxv1alpha1.BackendAncestorStatus) gwv1.RouteParentStatus {
		return gwv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions}
	})
}

// AsParents are entries of a policy's status as if they were a route's, which they are alike but for the name.
func AsParents(ancestors []gwv1.PolicyAncestorStatus) []gwv1.RouteParentStatus {
	return convert(ancestors, func(a gwv1.PolicyAncestorStatus) gwv1.RouteParentStatus {
		return gwv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions}
	})
}

// AsAncestors is the inverse of AsParents.
func AsAncestors(parents []gwv1.RouteParentStatus) []gwv1.PolicyAncestorStatus {
	return convert(parents, func(p gwv1.RouteParentStatus) gwv1.PolicyAncestorStatus {
		return gwv1.PolicyAncestorStatus{AncestorRef: p.ParentRef, ControllerName: p.ControllerName, Conditions: p.Conditions}
	})
}

func convert[A, B any](in []A, each func(A) B) []B {
	out := make([]B, 0, len(in))
	for _, a := range in {
		out = append(out, each(a))
	}
	return out
}

// merge replaces the entries of one controller and keeps those of others. Times of conditions that did not change stay.
// Where the API has no room for all, as many of ours as fit are there, and say so: with one more, the API server would
// refuse all of it. An entry is its controller's alone, so what ours no longer says goes.
//
// Ours stand where they stood. Order means nothing, but another controller may have an order, too: if each wrote its
// own, both would write for ever.
func merge(old, ours []entry, by gwv1.GatewayController, most int) []entry {
	theirs := len(slices.DeleteFunc(slices.Clone(old), func(e entry) bool { return e.controller == by }))
	room := max(most-theirs, 0)
	fit, left := ours[:min(len(ours), room)], len(ours)-room
	each := maxMessages / max(len(fit), 1)
	out, next := make([]entry, 0, theirs+len(fit)), 0
	for _, e := range old {
		switch {
		case e.controller != by:
			out = append(out, e)
		case next < len(fit):
			out = append(out, written(old, fit[next], by, left, most, each))
			next++
		}
	}
	for _, e := range fit[next:] {
		out = append(out, written(old, e, by, left, most, each))
	}
	return out
}

// written is an entry of ours as it is to be written, with so many bytes of messages, where so many others of ours are
// left out.
func written(old []entry, e entry, by gwv1.GatewayController, left, most, bytes int) entry {
	e.controller = by
	if left > 0 {
		e.conditions = append(slices.Clone(e.conditions), full(left, most, e.conditions))
	}
	said := conditions.For(0, saidBefore(old, e))
	now := conditions.Fit(e.conditions, bytes)
	for _, c := range now {
		said.Put(c)
	}
	// In the order of what is said now, whatever was said first: who compares statuses is to see no difference.
	e.conditions = make([]metav1.Condition, len(now))
	for i, c := range now {
		e.conditions[i] = *said.Get(c.Type)
	}
	return e
}

// saidBefore are those conditions of the entry as written that it still has.
func saidBefore(old []entry, now entry) []metav1.Condition {
	var out []metav1.Condition
	for _, e := range old {
		if e.controller != now.controller || !equality.Semantic.DeepEqual(e.ref, now.ref) {
			continue
		}
		for _, c := range e.conditions {
			if meta.FindStatusCondition(now.conditions, c.Type) != nil {
				out = append(out, c)
			}
		}
	}
	return out
}

func full(left, most int, others []metav1.Condition) metav1.Condition {
	var generation int64
	for _, c := range others {
		generation = max(generation, c.ObservedGeneration)
	}
	return conditions.New(v1alpha1.EntryConditionStatusFull, metav1.ConditionTrue, v1alpha1.EntryReasonTooMany,
		fmt.Sprintf(
			"A status is limited to %d entries of all controllers together: %d entries of the mesh are left out.", most, left),
		generation)
}
