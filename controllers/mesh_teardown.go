// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// takeDownPause is how soon node proxies that end are looked at again; their going is watched.
	takeDownPause = 2 * time.Second
	// clearPatience bounds how long node proxies wait for statuses to be taken back, looking every clearPause.
	clearPatience = 30 * time.Second
	clearPause    = 200 * time.Millisecond
)

// teardown is how far a Mesh that is gone has been taken down: since when the operator knows that it is gone, since
// when no pod is captured any more, and since when nothing but statuses is left.
type teardown struct {
	began, released, cleared time.Time
	// told: an Event has named the nodes that are not waited for.
	told bool
}

// takeDown removes what a Mesh leaves, in this order: each agent stops capturing, which it does as soon as the Mesh is
// gone; then go the waypoints, which nothing uses any more, and what the mesh wrote into statuses; then the node
// proxies; and when the last agent has ended, the policies that limit agents. Whoever waits for the DaemonSet to be
// gone, as "make undeploy" does before it removes the operator, so waits for all of it.
func (r *meshReconciler) takeDown(ctx context.Context) (reconcile.Result, error) {
	ds := &appsv1.DaemonSet{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: names.NodeDaemonSet}, ds)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	captures := err == nil && ds.DeletionTimestamp == nil && madeForMesh(ds)
	if r.going.began.IsZero() {
		r.going.began = time.Now()
	}
	if captures {
		if wait := r.releasing(); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	if err := r.removeWaypoints(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if captures && r.clearing() {
		return reconcile.Result{RequeueAfter: clearPause}, nil
	}
	return r.removeNodes(ctx)
}

// removeNodes removes the node proxies and what goes after them.
func (r *meshReconciler) removeNodes(ctx context.Context) (reconcile.Result, error) {
	ds := &appsv1.DaemonSet{}
	ds.Namespace, ds.Name = r.options.Namespace, names.NodeDaemonSet
	gone, err := r.applier.removeIf(ctx, ds, metav1.DeletePropagationForeground, madeForMesh)
	if err != nil {
		return reconcile.Result{}, err
	}
	pods, err := r.nodePods(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	ending, lost, err := r.reachable(ctx, pods)
	if err != nil {
		return reconcile.Result{}, err
	}
	// A DaemonSet stays as long as any of its pods.
	if len(ending) > 0 || (!gone && len(lost) == 0) {
		return reconcile.Result{RequeueAfter: takeDownPause}, nil
	}
	if len(lost) > 0 && !r.going.told {
		r.going.told = true
		slices.Sort(lost)
		r.announce.warn(ds, v1alpha1.MeshReasonNodesUnreachable, "Delete",
			"The Mesh was deleted while some nodes were not ready: "+enumerate(lost)+". Their pods "+
				"stay captured until the node is back and its agent releases them, or until the node restarts.")
	}
	for _, obj := range deploy.Policies(r.options.Namespace) {
		if _, err := r.applier.removeIf(ctx, obj, metav1.DeletePropagationBackground, madeForMesh); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// removeWaypoints removes every waypoint, whatever becomes of its Gateway, and the Gateways that the operator made.
func (r *meshReconciler) removeWaypoints(ctx context.Context) error {
	if err := r.removeWaypointObjects(ctx); err != nil {
		return err
	}
	served, err := r.kinds.served(gatewayKinds()...)
	if err != nil || !served {
		return err
	}
	var gateways gwv1.GatewayList
	if err := r.client.List(ctx, &gateways, client.HasLabels{names.LabelAutomatic}); err != nil {
		return err
	}
	for i := range gateways.Items {
		_, err := r.applier.removeIf(ctx, &gateways.Items[i], metav1.DeletePropagationBackground, madeForMesh)
		if err != nil {
			return err
		}
	}
	return nil
}

// removeWaypointObjects removes what waypoints are made of, but for their Gateways.
func (r *meshReconciler) removeWaypointObjects(ctx context.Context) error {
	var deployments appsv1.DeploymentList
	ours := client.MatchingLabels{names.LabelManagedBy: names.ManagedBy, names.LabelComponent: names.ComponentWaypoint}
	if err := r.client.List(ctx, &deployments, ours); err != nil {
		return err
	}
	var errs []error
	for i := range deployments.Items {
		owner := metav1.GetControllerOf(&deployments.Items[i])
		if owner == nil {
			continue
		}
		made := func(o client.Object) bool { return MadeFor(o, owner.UID) }
		for _, obj := range waypointObjects(deployments.Items[i].Namespace, owner.Name) {
			_, err := r.applier.removeIf(ctx, obj, metav1.DeletePropagationBackground, made)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// releasing is for how long node proxies are still needed: until no pod is captured, and a moment longer, since senders
// hear later than agents that a pod takes no mTLS any more.
func (r *meshReconciler) releasing() time.Duration {
	left := r.options.releaseTimeout - time.Since(r.going.began)
	captured := 0
	if r.options.NodeReports != nil {
		for _, report := range r.options.NodeReports() {
			captured += report.Captured
		}
	}
	if captured > 0 {
		r.going.released = time.Time{}
		return left
	}
	if r.going.released.IsZero() {
		r.going.released = time.Now()
	}
	return min(left, r.options.ReleaseGrace-time.Since(r.going.released))
}

// clearing tells whether to wait for statuses to be taken back: once the node proxies are gone the operator may go at
// any time, and nobody would take back what it wrote.
func (r *meshReconciler) clearing() bool {
	if r.options.StatusesCleared == nil || r.options.StatusesCleared() {
		return false
	}
	if r.going.cleared.IsZero() {
		r.going.cleared = time.Now()
	}
	return time.Since(r.going.cleared) < clearPatience
}

// reachable splits node proxies into those whose kubelet can end them and the nodes of those whose can't. The latter
// are not waited for: their nodes may never come back.
func (r *meshReconciler) reachable(
	ctx context.Context, pods []corev1.Pod,
) (ending []corev1.Pod, lost []string, err error) {
	for i := range pods {
		node := &corev1.Node{}
		err := r.client.Get(ctx, client.ObjectKey{Name: pods[i].Spec.NodeName}, node)
		switch {
		case client.IgnoreNotFound(err) != nil:
			return nil, nil, err
		case err == nil && !nodeReady(node):
			lost = append(lost, node.Name)
		default:
			ending = append(ending, pods[i])
		}
	}
	return ending, lost, nil
}

func nodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return true
}
