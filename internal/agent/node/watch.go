// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni"
	"github.com/fairway-mesh/fairway/internal/member"
)

const (
	// workers is how many pods are worked on at once; most of that is waiting for the proxy.
	workers = 32
	// retryFirst and retryLast bound the wait after a failure, which doubles in between.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
)

// watch has the reconcilers called.
func (a *Agent) watch() error {
	options := controller.Options{
		MaxConcurrentReconciles: workers,
		// Names are for metrics of controller-runtime's own registry, which the agent doesn't serve.
		SkipNameValidation: new(true),
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryLast),
	}
	err := builder.ControllerManagedBy(a.manager).
		Named("pods").
		WithOptions(options).
		For(&corev1.Pod{}).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(a.podsOf), builder.WithPredicates(labelsMatter())).
		Watches(&v1alpha1.Mesh{}, handler.EnqueueRequestsFromMapFunc(a.podsOf), builder.WithPredicates(meshMatters())).
		Watches(&v1alpha1.AuthenticationPolicy{}, handler.EnqueueRequestsFromMapFunc(a.podsOf),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(a.requests, &handler.TypedEnqueueRequestForObject[*corev1.Pod]{})).
		Complete(a.pods)
	if err != nil {
		return err
	}
	if a.installer == nil {
		return nil
	}
	options.MaxConcurrentReconciles = 1
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	return builder.ControllerManagedBy(a.manager).
		Named("namespaces").
		WithOptions(options).
		Watches(&corev1.Namespace{}, one, builder.WithPredicates(labelsMatter())).
		Watches(&v1alpha1.Mesh{}, one, builder.WithPredicates(meshMatters())).
		Complete(reconcile.Func(a.writeEnrolled))
}

// podsOf are the node's pods that an object concerns: all, or those of a namespace.
func (a *Agent) podsOf(ctx context.Context, o client.Object) []reconcile.Request {
	pods := &corev1.PodList{}
	var in []client.ListOption
	switch o.(type) {
	case *corev1.Namespace:
		in = append(in, client.InNamespace(o.GetName()))
	case *v1alpha1.AuthenticationPolicy:
		in = append(in, client.InNamespace(o.GetNamespace()))
	}
	if err := a.manager.GetClient().List(ctx, pods, in...); err != nil {
		a.opts.Log.Error(err, "list the pods of this node")
		return nil
	}
	out := make([]reconcile.Request, 0, len(pods.Items))
	for i := range pods.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&pods.Items[i])})
	}
	return out
}

// writeEnrolled keeps the CNI plugin's file of enrolled namespaces.
func (a *Agent) writeEnrolled(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if err := a.pods.Await(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var enrolled []string
	mesh, err := a.pods.Mesh(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if mesh != nil && mesh.DeletionTimestamp.IsZero() {
		list := &corev1.NamespaceList{}
		if err := a.manager.GetClient().List(ctx, list, client.MatchingLabels(member.EnrolledLabels())); err != nil {
			return reconcile.Result{}, err
		}
		for _, ns := range list.Items {
			enrolled = append(enrolled, ns.Name)
		}
	}
	_, err = cni.WriteState(cni.StateFile(a.opts.CNIConfDir), enrolled)
	return reconcile.Result{}, err
}

// labelsMatter lets an update of a namespace through if its labels changed.
func labelsMatter() predicate.Predicate { return predicate.LabelChangedPredicate{} }

// meshMatters lets an update of the Mesh through if something changed that pods depend on: its status changes often.
func meshMatters() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		old, ok1 := e.ObjectOld.(*v1alpha1.Mesh)
		now, ok2 := e.ObjectNew.(*v1alpha1.Mesh)
		return !ok1 || !ok2 || old.Generation != now.Generation ||
			old.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero() ||
			!reflect.DeepEqual(old.Status.Network, now.Status.Network)
	}}
}
