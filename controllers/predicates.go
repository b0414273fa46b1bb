// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/member"
)

// in passes the objects of a namespace.
func in(namespace string) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetNamespace() == namespace })
}

// named passes the objects of a name.
func named(name string) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == name })
}

// meshChanged passes a Mesh that comes, goes or changes in more than its status, which counts pods and so changes
// often.
func meshChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld, e.ObjectNew
		return before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID() ||
			!before.GetDeletionTimestamp().Equal(after.GetDeletionTimestamp())
	}}
}

// podCIDRsChanged passes Nodes that come, go or change their ranges; their heartbeats don't matter.
func podCIDRsChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.Node)
		after, ok2 := e.ObjectNew.(*corev1.Node)
		return !ok1 || !ok2 || !slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs)
	}}
}

// placementChanged passes Nodes that come, go, or change in what deploy.NodesFor counts them by. That they aren't ready
// for a while, all of a zone perhaps, would else have every waypoint looked at for each of them.
func placementChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.Node)
		after, ok2 := e.ObjectNew.(*corev1.Node)
		return !ok1 || !ok2 || !maps.Equal(before.Labels, after.Labels) ||
			!equality.Semantic.DeepEqual(deploy.PlacingTaints(before), deploy.PlacingTaints(after))
	}}
}

// nodePodChanged passes pods of the node DaemonSet whose readiness, or the reason why they lack it, changed.
func nodePodChanged() predicate.Predicate {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return deploy.IsNode(o.GetLabels()) })
	return predicate.And(ours, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.Pod)
		after, ok2 := e.ObjectNew.(*corev1.Pod)
		return !ok1 || !ok2 || podTrouble(before) != podTrouble(after) || pluginTrouble(before) != pluginTrouble(after)
	}})
}

// waypointPodChanged passes pods of waypoints whose readiness, or the reason why they lack it, changed.
func waypointPodChanged() predicate.Predicate {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool {
		pod, ok := o.(*corev1.Pod)
		return ok && member.Waypoint(pod)
	})
	return predicate.And(ours, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.Pod)
		after, ok2 := e.ObjectNew.(*corev1.Pod)
		return !ok1 || !ok2 || podTrouble(before) != podTrouble(after)
	}})
}
