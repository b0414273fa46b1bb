// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// gatewayClassCRD is the CRD whose annotation tells which version of the Gateway API is installed.
const gatewayClassCRD = "gatewayclasses.gateway.networking.k8s.io"

// gatewayKinds are the kinds without which there are no waypoints.
func gatewayKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{gatewayKind("GatewayClass"), gatewayKind("Gateway")}
}

func gatewayKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: gwv1.GroupVersion.Group, Version: gwv1.GroupVersion.Version, Kind: kind}
}

// defaultFeatures are the Gateway API's features that the mesh supports.
func defaultFeatures() []features.FeatureName {
	set := features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures)
	set.Insert(features.SupportHTTPRoute, features.SupportGRPCRoute, features.SupportReferenceGrant)
	return set.UnsortedList()
}

// supportedFeatures are features as statuses list them: sorted by name.
func supportedFeatures(list []features.FeatureName) []gwv1.SupportedFeature {
	out := make([]gwv1.SupportedFeature, 0, len(list))
	for _, f := range list {
		out = append(out, gwv1.SupportedFeature{Name: gwv1.FeatureName(f)})
	}
	slices.SortFunc(out, func(a, b gwv1.SupportedFeature) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(out)
}

// gatewayClassReconciler writes the status of the mesh's classes, and makes the class of waypoints if it is missing.
type gatewayClassReconciler struct {
	client   client.Client
	announce announcer
	features []gwv1.SupportedFeature
}

func setupGatewayClass(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	r := &gatewayClassReconciler{
		client:   mgr.GetClient(),
		features: supportedFeatures(o.features),
		announce: newAnnouncer(mgr.GetEventRecorder(names.ManagedBy), string(gwv1.GatewayClassConditionStatusAccepted),
			string(gwv1.GatewayClassReasonInvalidParameters), string(gwv1.GatewayClassReasonUnsupported),
			string(gwv1.GatewayClassReasonUnsupportedVersion)),
	}
	return kinds.When(func() error {
		return ctrl.NewControllerManagedBy(mgr).
			Named("gatewayclass").
			For(&gwv1.GatewayClass{}).
			Watches(&v1alpha1.Mesh{}, handler.EnqueueRequestsFromMapFunc(r.waypointClass),
				builder.WithPredicates(meshChanged())).
			Watches(&v1alpha1.ProxyParameters{}, handler.EnqueueRequestsFromMapFunc(r.ofParameters)).
			WatchesMetadata(crdMetadata(), handler.EnqueueRequestsFromMapFunc(r.all),
				builder.WithPredicates(named(gatewayClassCRD))).
			Complete(o.Lead.Reconciler(r))
	}, gatewayKinds()...)
}

func (r *gatewayClassReconciler) waypointClass(context.Context, client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: names.WaypointClass}}}
}

func (r *gatewayClassReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.matching(ctx, func(*gwv1.GatewayClass) bool { return true })
}

func (r *gatewayClassReconciler) ofParameters(ctx context.Context, o client.Object) []reconcile.Request {
	return r.matching(ctx, func(c *gwv1.GatewayClass) bool { return classNames(c, o) })
}

// classNames tells whether a class's parametersRef names an object.
func classNames(c *gwv1.GatewayClass, o client.Object) bool {
	ref := c.Spec.ParametersRef
	return ref != nil && ref.Name == o.GetName() && ref.Namespace != nil && string(*ref.Namespace) == o.GetNamespace()
}

func (r *gatewayClassReconciler) matching(
	ctx context.Context, match func(*gwv1.GatewayClass) bool,
) []reconcile.Request {
	var classes gwv1.GatewayClassList
	if err := r.client.List(ctx, &classes); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list GatewayClasses")
		return nil
	}
	var out []reconcile.Request
	for i := range classes.Items {
		if c := &classes.Items[i]; c.Spec.ControllerName == names.GatewayController && match(c) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(c)})
		}
	}
	return out
}

// Reconcile writes the status of a class of ours.
func (r *gatewayClassReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	class := &gwv1.GatewayClass{}
	err := r.client.Get(ctx, req.NamespacedName, class)
	if apierrors.IsNotFound(err) && req.Name == names.WaypointClass {
		return reconcile.Result{}, r.create(ctx)
	}
	if err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if class.Spec.ControllerName != names.GatewayController {
		return reconcile.Result{}, nil
	}
	// It was set once, and kept the class for ever where the operator went first. What is deleted is made again.
	err = dropFinalizer(ctx, r.client, class, gwv1.GatewayClassFinalizerGatewaysExist)
	if err != nil || class.DeletionTimestamp != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	c := conditions.For(class.Generation, class.Status.Conditions)
	if err := r.accept(ctx, class, c); err != nil {
		return reconcile.Result{}, err
	}
	// Nothing of a class takes time, so what is wrong with it is somebody's to mend.
	setProgress(c, *c.Get(string(gwv1.GatewayClassConditionStatusAccepted)), true)
	if err := r.version(ctx, c); err != nil {
		return reconcile.Result{}, err
	}
	again, err := writeStatus(ctx, r.client, r.announce, class,
		func(c *gwv1.GatewayClass) []metav1.Condition { return c.Status.Conditions },
		func(after *gwv1.GatewayClass) status.Plan {
			after.Status.Conditions, after.Status.SupportedFeatures = c.List(), r.features
			return status.Plan{}
		})
	return reconcile.Result{RequeueAfter: again}, err
}

// create makes the class of waypoints, once there is a Mesh, and for its lifetime. An existing one is the user's to
// change: it is never applied again.
func (r *gatewayClassReconciler) create(ctx context.Context) error {
	mesh, err := currentMesh(ctx, r.client)
	if err != nil || mesh == nil {
		return err
	}
	class := &gwv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:            names.WaypointClass,
			Labels:          map[string]string{names.LabelManagedBy: names.ManagedBy},
			OwnerReferences: []metav1.OwnerReference{meshOwner(mesh)},
		},
		Spec: gwv1.GatewayClassSpec{
			ControllerName: names.GatewayController,
			Description:    new("Fairway waypoints: L7 proxies of a namespace's Services"),
		},
	}
	if err := r.client.Create(ctx, class, client.FieldOwner(names.ManagedBy)); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func (r *gatewayClassReconciler) accept(ctx context.Context, class *gwv1.GatewayClass, c *conditions.Set) error {
	kind := string(gwv1.GatewayClassConditionStatusAccepted)
	if class.Name != names.WaypointClass {
		c.False(kind, string(gwv1.GatewayClassReasonUnsupported),
			fmt.Sprintf("Controller %s serves only GatewayClass %s.", names.GatewayController, names.WaypointClass))
		return nil
	}
	_, problem, err := classParameters(ctx, r.client, class)
	switch {
	case err != nil:
		return err
	case problem != "":
		c.False(kind, string(gwv1.GatewayClassReasonInvalidParameters), problem)
	default:
		c.True(kind, string(gwv1.GatewayClassReasonAccepted), "Gateways of this class become waypoints.")
	}
	return nil
}

// version says whether the installed release of the Gateway API is one that the mesh supports. Any other is served as
// well as possible.
func (r *gatewayClassReconciler) version(ctx context.Context, c *conditions.Set) error {
	crd := crdMetadata()
	if err := r.client.Get(ctx, client.ObjectKey{Name: gatewayClassCRD}, crd); err != nil {
		return client.IgnoreNotFound(err)
	}
	installed := gatewayapi.Of(crd.Annotations)
	kind := string(gwv1.GatewayClassConditionStatusSupportedVersion)
	if !installed.Supported() {
		c.False(kind, string(gwv1.GatewayClassReasonUnsupportedVersion), fmt.Sprintf(
			"Gateway API %q is installed, and this operator is made for %s: it serves what it knows of the installed one.",
			installed.Bundle, gatewayapi.Supported))
		return nil
	}
	message := "Gateway API " + installed.Bundle + " is installed"
	if lacking := installed.Lacking(); lacking != "" {
		message += ": " + lacking
	}
	c.True(kind, string(gwv1.GatewayClassReasonSupportedVersion), message+".")
	return nil
}

// currentMesh is the Mesh; nil if there is none, or none that stays.
func currentMesh(ctx context.Context, c client.Reader) (*v1alpha1.Mesh, error) {
	mesh := &v1alpha1.Mesh{}
	err := c.Get(ctx, client.ObjectKey{Name: names.Mesh}, mesh)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // "none" is an answer here, not an error
	}
	if err != nil || mesh.DeletionTimestamp != nil {
		return nil, err
	}
	return mesh, nil
}
