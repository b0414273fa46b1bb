// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// replicas of a waypoint: those of an automatic one.
func (s size) replicas() int { return min(2, s.Nodes) }

// deployments waits until the operator has made a Deployment for each waypoint, by namespace.
func (w *world) deployments() []appsv1.Deployment {
	w.t.Helper()
	var list appsv1.DeploymentList
	eventually.Within(w.t, patience, "the operator makes all waypoints", func() error {
		if err := w.List(w.t.Context(), &list, client.MatchingLabels{
			names.LabelManagedBy: names.ManagedBy,
		}); err != nil {
			return err
		}
		if have := len(list.Items); have != w.Waypoints {
			return fmt.Errorf("%d of %d are there", have, w.Waypoints)
		}
		return nil
	})
	return list.Items
}

// roll makes what the cluster's controllers make of the waypoints' Deployments, and returns the pods.
func (w *world) roll(deployments []appsv1.Deployment) []*corev1.Pod {
	w.t.Helper()
	replicas := w.replicas()
	many := int32(replicas)
	out := make([]*corev1.Pod, len(deployments)*replicas)
	w.each(len(deployments), func(ctx context.Context, n int) error {
		d := &deployments[n]
		template := *d.Spec.Template.DeepCopy()
		rs := &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-1", Labels: template.Labels},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: new(many), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
			},
		}
		if err := controllerutil.SetControllerReference(d, rs, w.Scheme()); err != nil {
			return err
		}
		if err := w.Create(ctx, rs); err != nil {
			return err
		}
		slice := endpointSlice(d.Namespace, d.Name, names.PortMTLS, "mtls")
		for r := range replicas {
			at := n*replicas + r
			pod := &corev1.Pod{
				ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy(),
			}
			pod.Namespace, pod.Name = d.Namespace, fmt.Sprint(rs.Name, "-", r)
			pod.Spec.NodeName = nodeName((w.Pods + at) % w.Nodes)
			if err := controllerutil.SetControllerReference(rs, pod, w.Scheme()); err != nil {
				return err
			}
			address := podAddress(w.Nodes, w.Pods+at)
			if err := w.run(ctx, pod, address); err != nil {
				return err
			}
			out[at] = pod
			slice.Endpoints = append(slice.Endpoints, w.endpoint(address, (w.Pods+at)%w.Nodes, pod))
		}
		if err := w.Create(ctx, slice); err != nil {
			return err
		}
		before := d.DeepCopy()
		d.Status = appsv1.DeploymentStatus{
			ObservedGeneration: d.Generation, Replicas: many, UpdatedReplicas: many, ReadyReplicas: many,
			AvailableReplicas: many,
		}
		return w.Status().Patch(ctx, d, client.MergeFrom(before)) // the operator writes the rest
	})
	return out
}

// programmed fails as long as a route's status doesn't say that all proxies have it.
func (w *world) programmed() error {
	var list gwv1.HTTPRouteList
	if err := w.List(w.t.Context(), &list); err != nil {
		return err
	}
	pending := 0
	for _, r := range list.Items {
		if !programmed(&r) {
			pending++
		}
	}
	if pending > 0 || len(list.Items) != w.Routes {
		return fmt.Errorf("%d of %d routes aren't programmed, and there are to be %d", pending, len(list.Items), w.Routes)
	}
	return nil
}

// programmed tells whether a route says that its present generation is served.
func programmed(r *gwv1.HTTPRoute) bool {
	return slices.ContainsFunc(r.Status.Parents, func(p gwv1.RouteParentStatus) bool {
		c := meta.FindStatusCondition(p.Conditions, v1alpha1.EntryConditionProgrammed)
		return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == r.Generation
	})
}
