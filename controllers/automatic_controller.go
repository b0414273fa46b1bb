// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/names"
)

// automaticWaypointReconciler keeps one Gateway in each namespace that needs a waypoint and has asked for none by name.
// Its requests are namespaces (in Name).
type automaticWaypointReconciler struct {
	client client.Client
	system string // the operator's namespace
	needed func(namespace string) (needed, known bool)
	linger time.Duration

	mu sync.Mutex
	// idle holds since when a waypoint is not needed, for those that linger. Each term of a leader's counts anew.
	idle map[string]time.Time
	term uint64
}

func setupAutomatic(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	r := &automaticWaypointReconciler{
		client: mgr.GetClient(), system: o.Namespace, needed: o.AutomaticWaypoints, linger: o.AutomaticLinger,
		idle: map[string]time.Time{},
	}
	toNamespace := func(_ context.Context, obj client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: obj.GetNamespace()}}}
	}
	return kinds.When(func() error {
		return ctrl.NewControllerManagedBy(mgr).
			Named("automatic-waypoint").
			Watches(&gwv1.Gateway{}, handler.EnqueueRequestsFromMapFunc(toNamespace),
				builder.WithPredicates(named(names.AutomaticWaypoint))).
			Watches(&v1alpha1.Mesh{}, handler.EnqueueRequestsFromMapFunc(r.all), builder.WithPredicates(meshChanged())).
			WatchesRawSource(o.AutomaticChanged).
			Complete(o.Lead.Reconciler(r))
	}, gatewayKinds()...)
}

// all are the namespaces that have an automatic waypoint, or need one: while there is no Mesh, none is made.
func (r *automaticWaypointReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var gateways gwv1.GatewayList
	if err := r.client.List(ctx, &gateways, client.HasLabels{names.LabelAutomatic}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list Gateways")
		return nil
	}
	var namespaces corev1.NamespaceList
	if err := r.client.List(ctx, &namespaces); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list namespaces")
		return nil
	}
	var out []reconcile.Request
	for i := range gateways.Items {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: gateways.Items[i].Namespace}})
	}
	for i := range namespaces.Items {
		if needed, known := r.needed(namespaces.Items[i].Name); needed && known {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: namespaces.Items[i].Name}})
		}
	}
	return out
}

// Reconcile makes or removes the automatic waypoint of a namespace. Only a Gateway with the label is ever removed.
func (r *automaticWaypointReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r.begin(leading.Term(ctx))
	needed, known := r.needed(req.Name)
	if !known {
		r.busy(req.Name)
		return reconcile.Result{}, nil
	}
	mesh, err := currentMesh(ctx, r.client)
	if err != nil {
		return reconcile.Result{}, err
	}
	key := client.ObjectKey{Namespace: req.Name, Name: names.AutomaticWaypoint}
	g := &gwv1.Gateway{}
	err = r.client.Get(ctx, key, g)
	missing := apierrors.IsNotFound(err)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	removable := !missing && g.Labels[names.LabelAutomatic] != "" && g.DeletionTimestamp == nil
	// A Mesh that is gone takes its waypoints along, once no pod is captured any more; see meshReconciler.
	if removable && !needed && mesh != nil {
		if rest := r.lingers(req.Name); rest > 0 {
			return reconcile.Result{RequeueAfter: rest}, nil
		}
		return r.remove(ctx, g)
	}
	r.busy(req.Name)
	if !needed || !missing || mesh == nil {
		return reconcile.Result{}, nil
	}
	owners, err := systemOwner(ctx, r.client, r.system)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.create(ctx, automaticWaypoint(key, append(owners, meshOwner(mesh))))
}

func (r *automaticWaypointReconciler) create(ctx context.Context, g *gwv1.Gateway) error {
	err := r.client.Create(ctx, g, client.FieldOwner(names.ManagedBy))
	// The namespace may be going away, or the user may have been faster.
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

func (r *automaticWaypointReconciler) remove(ctx context.Context, g *gwv1.Gateway) (reconcile.Result, error) {
	err := r.client.Delete(ctx, g, client.Preconditions{UID: new(g.UID), ResourceVersion: new(g.ResourceVersion)})
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: conflictPause}, nil
	}
	r.busy(g.Namespace)
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

func (r *automaticWaypointReconciler) begin(term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if term != r.term {
		r.term, r.idle = term, map[string]time.Time{}
	}
}

// lingers is for how much longer an idle waypoint stays.
func (r *automaticWaypointReconciler) lingers(namespace string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	since, ok := r.idle[namespace]
	if !ok {
		since = time.Now()
		r.idle[namespace] = since
	}
	return r.linger - time.Since(since)
}

// busy ends a waypoint's idle time.
func (r *automaticWaypointReconciler) busy(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.idle, namespace)
}

func automaticWaypoint(key client.ObjectKey, owners []metav1.OwnerReference) *gwv1.Gateway {
	return &gwv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       key.Namespace,
			Name:            key.Name,
			Labels:          map[string]string{names.LabelAutomatic: "true", names.LabelManagedBy: names.ManagedBy},
			OwnerReferences: owners,
		},
		Spec: gwv1.GatewaySpec{
			GatewayClassName: names.WaypointClass,
			Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: ingest.ProtocolMTLS}},
		},
	}
}
