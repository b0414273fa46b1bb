// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// waypointConcurrency is how many waypoints are deployed at the same time.
const waypointConcurrency = 4

// waypointReconciler deploys the waypoint of each Gateway of class names.WaypointClass and writes the Gateway's status.
type waypointReconciler struct {
	client   client.Client
	applier  *applier
	announce announcer
	holds    status.Holds
	options  Options
}

func setupWaypoint(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	r := &waypointReconciler{
		client:  mgr.GetClient(),
		applier: newApplier(mgr.GetClient(), mgr.GetAPIReader()),
		options: o,
		announce: newAnnouncer(mgr.GetEventRecorder(names.ManagedBy), string(gwv1.GatewayConditionProgrammed),
			waypointNeedsSomebody()...),
	}
	return kinds.When(func() error {
		return ctrl.NewControllerManagedBy(mgr).
			Named("waypoint").
			WithOptions(controller.Options{MaxConcurrentReconciles: waypointConcurrency}).
			For(&gwv1.Gateway{}).
			Owns(&appsv1.Deployment{}).
			Owns(&corev1.Service{}).
			Owns(&corev1.ServiceAccount{}).
			Owns(&corev1.ConfigMap{}).
			Owns(&policyv1.PodDisruptionBudget{}).
			Owns(&autoscalingv2.HorizontalPodAutoscaler{}).
			Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(ofEndpoints)).
			Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofPod), builder.WithPredicates(waypointPodChanged())).
			Watches(&gwv1.GatewayClass{}, handler.EnqueueRequestsFromMapFunc(r.ofClass)).
			Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.ofNamespace),
				builder.WithPredicates(predicate.LabelChangedPredicate{})).
			Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.all), builder.WithPredicates(placementChanged())).
			Watches(&v1alpha1.ProxyParameters{}, handler.EnqueueRequestsFromMapFunc(r.ofParameters)).
			Watches(&v1alpha1.Mesh{}, handler.EnqueueRequestsFromMapFunc(r.all), builder.WithPredicates(meshChanged())).
			Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.all),
				builder.WithPredicates(in(o.Namespace), named(names.TrustBundleConfigMap))).
			WatchesRawSource(o.ProgrammedChanged).
			Complete(o.Lead.Reconciler(r))
	}, gatewayKinds()...)
}

// ofEndpoints finds the Gateway whose waypoint the endpoints are of: a slice has the labels of its Service.
func ofEndpoints(_ context.Context, o client.Object) []reconcile.Request {
	gateway := o.GetLabels()[names.LabelGatewayName]
	if gateway == "" || o.GetLabels()[discoveryv1.LabelServiceName] != names.WaypointResource(gateway) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: gateway}}}
}

// ofPod finds the Gateway of a waypoint's pod.
func ofPod(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: o.GetNamespace(), Name: o.GetLabels()[names.LabelGatewayName],
	}}}
}

func (r *waypointReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.matching(ctx, func(*gwv1.Gateway) bool { return true })
}

func (r *waypointReconciler) ofClass(ctx context.Context, o client.Object) []reconcile.Request {
	return r.matching(ctx, func(g *gwv1.Gateway) bool { return string(g.Spec.GatewayClassName) == o.GetName() })
}

func (r *waypointReconciler) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.matching(ctx, func(g *gwv1.Gateway) bool { return g.Namespace == o.GetName() })
}

// ofParameters finds the Gateways that parameters are for: those that name them, or all if their class does.
func (r *waypointReconciler) ofParameters(ctx context.Context, o client.Object) []reconcile.Request {
	class := &gwv1.GatewayClass{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: names.WaypointClass}, class); err == nil && classNames(class, o) {
		return r.all(ctx, o)
	}
	return r.matching(ctx, func(g *gwv1.Gateway) bool {
		i := g.Spec.Infrastructure
		return g.Namespace == o.GetNamespace() && i != nil && i.ParametersRef != nil && i.ParametersRef.Name == o.GetName()
	})
}

func (r *waypointReconciler) matching(ctx context.Context, match func(*gwv1.Gateway) bool) []reconcile.Request {
	var gateways gwv1.GatewayList
	if err := r.client.List(ctx, &gateways, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list Gateways")
		return nil
	}
	var out []reconcile.Request
	for i := range gateways.Items {
		if g := &gateways.Items[i]; g.Spec.GatewayClassName == names.WaypointClass && match(g) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(g)})
		}
	}
	return out
}

// Reconcile deploys one waypoint.
func (r *waypointReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	g := &gwv1.Gateway{}
	if err := r.client.Get(ctx, req.NamespacedName, g); err != nil {
		if apierrors.IsNotFound(err) {
			// What it owned goes with it.
			r.holds.Forget(req.NamespacedName)
			r.applier.forget(waypointObjects(req.Namespace, req.Name)...)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if g.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	g.SetGroupVersionKind(gatewayKind("Gateway"))
	class, err := r.class(ctx, g)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch {
	case !ingest.IsWaypoint(g, class):
		return reconcile.Result{}, r.remove(ctx, g)
	case class == nil:
		// The operator makes the class again while there is a Mesh; what runs goes on until then.
		return reconcile.Result{}, r.withoutMesh(ctx, g)
	}
	observed, deployErr := r.deploy(ctx, g, class)
	again, err := writeStatus(ctx, r.client, r.announce, g,
		func(g *gwv1.Gateway) []metav1.Condition { return g.Status.Conditions },
		func(g *gwv1.Gateway) status.Plan {
			return waypointStatus(g, observed, r.holds.Ensure(req.NamespacedName))
		})
	if again == 0 && observed.deployProblem != "" {
		again = r.options.DeployRetry
	}
	return reconcile.Result{RequeueAfter: again}, errors.Join(deployErr, err)
}

// class finds the Gateway's class; nil if there is none.
func (r *waypointReconciler) class(ctx context.Context, g *gwv1.Gateway) (*gwv1.GatewayClass, error) {
	class := &gwv1.GatewayClass{}
	err := r.client.Get(ctx, client.ObjectKey{Name: string(g.Spec.GatewayClassName)}, class)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // "none" is an answer here, not an error
	}
	return class, err
}

// deploy applies what the Gateway asks for. What the user must mend is in waypointObserved; errors are to be retried.
func (r *waypointReconciler) deploy(
	ctx context.Context, g *gwv1.Gateway, class *gwv1.GatewayClass,
) (waypointObserved, error) {
	o := waypointObserved{clusterDomain: r.options.clusterDomain}
	namespace := &corev1.Namespace{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: g.Namespace}, namespace); err != nil {
		return o, err
	}
	o.enrolled = member.Enrolled(namespace)
	params, err := r.parameters(ctx, g, class, &o)
	if err != nil {
		return o, err
	}
	mesh, err := currentMesh(ctx, r.client)
	if err != nil {
		return o, err
	}
	o.mesh = mesh != nil
	if mesh == nil {
		return o, r.withoutMesh(ctx, g)
	}
	bundle := &corev1.ConfigMap{} // of no use where SPIRE gives identities
	err = r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: names.TrustBundleConfigMap}, bundle)
	if client.IgnoreNotFound(err) != nil {
		return o, err
	}
	o.trustBundle = bundle.Data[names.TrustBundleKey] != "" || mesh.Spec.SPIRE() != nil
	// What is not accepted is not deployed, nor what would get no identity; what a mistake finds running goes on as it
	// was.
	if o.trustBundle && o.enrolled && gatewayProblem(g, o) == nil {
		var nodes corev1.NodeList
		if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
			return o, err
		}
		w := deploy.Waypoint{
			Control: controlOf(mesh, r.options), Gateway: g, Parameters: params, TrustBundle: bundle.Data[names.TrustBundleKey],
			Nodes: deploy.NodesFor(nodes.Items, params), SendBuffers: deploy.SendBuffers(namespace),
		}
		if err := r.apply(ctx, mesh, w, &o); err != nil {
			return o, err
		}
	}
	return o, r.observe(ctx, g, &o)
}

func (r *waypointReconciler) parameters(
	ctx context.Context, g *gwv1.Gateway, class *gwv1.GatewayClass, o *waypointObserved,
) (v1alpha1.ProxyParametersSpec, error) {
	ofClass, problem, err := classParameters(ctx, r.client, class)
	if err != nil {
		return v1alpha1.ProxyParametersSpec{}, err
	}
	if problem != "" {
		o.parametersProblem = "GatewayClass " + class.Name + ": " + problem
	}
	own, problem, err := gatewayParameters(ctx, r.client, g)
	if problem != "" {
		o.parametersProblem = "spec.infrastructure: " + problem
	}
	return deploy.MergeParameters(ofClass, own), err
}

// apply applies the objects of a waypoint. A name that is taken and an object that the API server refuses (invalid,
// over a quota) are the user's to mend. How they do it can't be watched, so it is tried again after
// Options.DeployRetry.
func (r *waypointReconciler) apply(
	ctx context.Context, mesh *v1alpha1.Mesh, w deploy.Waypoint, o *waypointObserved,
) error {
	for _, obj := range w.Objects() {
		var err error
		if d, ok := obj.(*appsv1.Deployment); ok {
			err = r.applyDeployment(ctx, mesh, w, d)
		} else {
			err = r.applier.apply(ctx, w.Gateway, obj)
		}
		switch {
		case errors.Is(err, errTaken) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err):
			o.deployProblem = err.Error()
			return nil
		case err != nil:
			return err
		}
	}
	if w.Autoscaled() {
		return nil
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Gateway.Namespace, Name: w.Gateway.Name},
	}
	_, err := r.applier.remove(ctx, w.Gateway, hpa)
	return err
}

func (r *waypointReconciler) applyDeployment(
	ctx context.Context, mesh *v1alpha1.Mesh, w deploy.Waypoint, d *appsv1.Deployment,
) error {
	if held, err := r.applier.held(ctx, mesh, d); held || err != nil {
		return err
	}
	if w.Autoscaled() {
		return r.applier.applyScaled(ctx, w.Gateway, d, w.MinReplicas())
	}
	return r.applier.apply(ctx, w.Gateway, d)
}

// observe reads how the waypoint is.
func (r *waypointReconciler) observe(ctx context.Context, g *gwv1.Gateway, o *waypointObserved) error {
	key := client.ObjectKey{Namespace: g.Namespace, Name: names.WaypointResource(g.Name)}
	deployment, service := &appsv1.Deployment{}, &corev1.Service{}
	if err := r.client.Get(ctx, key, deployment); client.IgnoreNotFound(err) != nil {
		return err
	}
	if metav1.IsControlledBy(deployment, g) {
		o.deployment = deployment
	}
	if o.deployment != nil && deployment.Status.ReadyReplicas == 0 {
		var pods corev1.PodList
		if err := r.client.List(ctx, &pods, client.InNamespace(g.Namespace),
			client.MatchingLabels(deploy.WaypointSelector(g.Name))); err != nil {
			return err
		}
		o.troubles = waypointTroubles(pods.Items)
	}
	if err := r.client.Get(ctx, key, service); client.IgnoreNotFound(err) != nil {
		return err
	}
	if metav1.IsControlledBy(service, g) {
		o.clusterIPs = service.Spec.ClusterIPs
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := r.client.Get(ctx, key, hpa); client.IgnoreNotFound(err) != nil {
		return err
	}
	if metav1.IsControlledBy(hpa, g) {
		o.autoscaler = hpa
	}
	o.acked, o.rejected = r.options.Programmed(client.ObjectKeyFromObject(g))
	if meta.IsStatusConditionTrue(g.Status.Conditions, v1alpha1.GatewayConditionEstablished) {
		return nil // what reachable is for has been decided for good
	}
	var slices discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &slices, client.InNamespace(key.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: key.Name}); err != nil {
		return err
	}
	o.reachable = anyReady(slices.Items)
	return nil
}

func anyReady(slices []discoveryv1.EndpointSlice) bool {
	for _, s := range slices {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				return true
			}
		}
	}
	return false
}

// withoutMesh removes a waypoint once the Mesh is gone and its node proxies with it. Before, pods are captured still,
// and meshReconciler removes the waypoints when they are not.
func (r *waypointReconciler) withoutMesh(ctx context.Context, g *gwv1.Gateway) error {
	err := r.client.Get(ctx, client.ObjectKey{Name: names.Mesh}, &v1alpha1.Mesh{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: names.NodeDaemonSet},
		&appsv1.DaemonSet{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	return r.remove(ctx, g)
}

// remove removes what was deployed for a Gateway that is no waypoint (any more).
func (r *waypointReconciler) remove(ctx context.Context, g *gwv1.Gateway) error {
	var failed error
	for _, obj := range waypointObjects(g.Namespace, g.Name) {
		_, err := r.applier.remove(ctx, g, obj)
		failed = errors.Join(failed, err)
	}
	return failed
}

// waypointObjects are the keys of everything that deploy.Waypoint may make.
func waypointObjects(namespace, gateway string) []client.Object {
	m := metav1.ObjectMeta{Namespace: namespace, Name: names.WaypointResource(gateway)}
	bundle := m
	bundle.Name = deploy.TrustBundleName(gateway)
	return []client.Object{
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: m}, &appsv1.Deployment{ObjectMeta: m},
		&policyv1.PodDisruptionBudget{ObjectMeta: m}, &corev1.Service{ObjectMeta: m},
		&corev1.ConfigMap{ObjectMeta: bundle}, &corev1.ServiceAccount{ObjectMeta: m},
	}
}
