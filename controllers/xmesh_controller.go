// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// xMeshReconciler writes the status of XMesh objects (GEP-3949) that name this mesh, where the cluster has the kind.
type xMeshReconciler struct {
	client   client.Client
	announce announcer
	features []gwv1.SupportedFeature
}

func setupXMesh(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	r := &xMeshReconciler{
		client: mgr.GetClient(), features: supportedFeatures(o.features),
		announce: newAnnouncer(mgr.GetEventRecorder(names.ManagedBy), string(gwxv1alpha1.MeshConditionAccepted),
			string(gwxv1alpha1.MeshReasonInvalidParameters)),
	}
	return kinds.When(func() error {
		return ctrl.NewControllerManagedBy(mgr).
			Named("xmesh").
			For(&gwxv1alpha1.XMesh{}).
			Watches(&v1alpha1.Mesh{}, handler.EnqueueRequestsFromMapFunc(r.all), builder.WithPredicates(meshChanged())).
			Complete(o.Lead.Reconciler(r))
	}, schema.GroupVersionKind{
		Group: gwxv1alpha1.GroupVersion.Group, Version: gwxv1alpha1.GroupVersion.Version,
		Kind: "XMesh",
	})
}

func (r *xMeshReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var list gwxv1alpha1.XMeshList
	if err := r.client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list XMeshes")
		return nil
	}
	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// Reconcile writes the status of one XMesh.
func (r *xMeshReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	x := &gwxv1alpha1.XMesh{}
	if err := r.client.Get(ctx, req.NamespacedName, x); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if x.Spec.ControllerName != names.MeshController || x.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	mesh, err := currentMesh(ctx, r.client)
	if err != nil {
		return reconcile.Result{}, err
	}
	c := conditions.For(x.Generation, x.Status.Conditions)
	accepted := string(gwxv1alpha1.MeshConditionAccepted)
	switch problem := xmeshProblem(x); {
	case problem != "":
		c.False(accepted, string(gwxv1alpha1.MeshReasonInvalidParameters), problem)
	case mesh == nil:
		c.False(accepted, string(gwxv1alpha1.MeshReasonPending), fmt.Sprintf("There is no %s %q of group %s yet.",
			v1alpha1.KindMesh, names.Mesh, v1alpha1.GroupVersion.Group))
	default:
		c.True(accepted, string(gwxv1alpha1.MeshReasonAccepted), "Fairway implements this mesh.")
	}
	again, err := writeStatus(ctx, r.client, r.announce, x,
		func(x *gwxv1alpha1.XMesh) []metav1.Condition { return x.Status.Conditions },
		func(after *gwxv1alpha1.XMesh) status.Plan {
			after.Status.Conditions, after.Status.SupportedFeatures = c.List(), r.features
			return status.Plan{}
		})
	return reconcile.Result{RequeueAfter: again}, err
}

// xmeshProblem judges parametersRef: it may name the one Mesh, whose settings are in force anyway.
func xmeshProblem(x *gwxv1alpha1.XMesh) string {
	ref := x.Spec.ParametersRef
	if ref == nil {
		return ""
	}
	if string(ref.Group) == v1alpha1.GroupVersion.Group && ref.Kind == v1alpha1.KindMesh && ref.Name == names.Mesh &&
		ref.Namespace == nil {
		return ""
	}
	return fmt.Sprintf("spec.parametersRef can only name %s %q of group %s.", v1alpha1.KindMesh, names.Mesh,
		v1alpha1.GroupVersion.Group)
}
