// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// meshReconciler runs the node proxies that a Mesh asks for, and tells in its status what is ready.
type meshReconciler struct {
	client   client.Client
	applier  *applier
	announce announcer
	kinds    *Kinds
	options  Options
	// claimed are the claims that an Event was made of. The one worker alone uses it, and what follows.
	claimed map[ingest.RefusedClaim]bool
	// going is how far the node proxies of a Mesh that is gone are let go, as seen in one term of this replica's lead.
	going teardown
	term  uint64
}

func setupMesh(mgr ctrl.Manager, kinds *Kinds, o Options) error {
	r := &meshReconciler{
		client:  mgr.GetClient(),
		applier: newApplier(mgr.GetClient(), mgr.GetAPIReader()),
		kinds:   kinds,
		options: o,
		announce: newAnnouncer(mgr.GetEventRecorder(names.ManagedBy), v1alpha1.MeshConditionReady,
			meshNeedsSomebody()...),
	}
	gatewayAPI := NewTrigger()
	c, err := ctrl.NewControllerManagedBy(mgr).
		Named("mesh").
		For(&v1alpha1.Mesh{}, builder.WithPredicates(meshChanged())).
		Watches(&appsv1.DaemonSet{}, toMesh(), builder.WithPredicates(in(o.Namespace), named(names.NodeDaemonSet))).
		Watches(&corev1.Node{}, toMesh(), builder.WithPredicates(podCIDRsChanged())).
		Watches(&corev1.Pod{}, toMesh(), builder.WithPredicates(in(o.Namespace), nodePodChanged())).
		Watches(&corev1.Secret{}, toMesh(), builder.WithPredicates(in(o.Namespace))).
		Watches(&corev1.ConfigMap{}, toMesh(), builder.WithPredicates(in(o.Namespace), named(names.TrustBundleConfigMap))).
		WatchesMetadata(crdMetadata(), toMesh(), builder.WithPredicates(named(gatewayClassCRD))).
		WatchesRawSource(o.CertificatesChanged).
		WatchesRawSource(o.NodesChanged).
		WatchesRawSource(gatewayAPI).
		Build(o.Lead.Reconciler(r))
	if err != nil {
		return err
	}
	// Kinds that not every cluster has.
	return errors.Join(
		kinds.When(func() error {
			gatewayAPI.Notify(types.NamespacedName{Name: names.Mesh})
			return nil
		}, gatewayKinds()...),
		kinds.When(func() error {
			return c.Watch(source.Kind[client.Object](mgr.GetCache(), &networkingv1.ServiceCIDR{}, toMesh()))
		}, networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR")),
		kinds.When(func() error {
			return c.Watch(source.Kind[client.Object](mgr.GetCache(), &certmanagerv1.Certificate{}, toMesh(), in(o.Namespace)))
		}, certmanagerv1.SchemeGroupVersion.WithKind(certmanagerv1.CertificateKind)),
	)
}

// toMesh maps every object to the one Mesh.
func toMesh() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: names.Mesh}}}
	})
}

// Reconcile brings a Mesh about, or takes down what is left of one.
func (r *meshReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if term := leading.Term(ctx); term != r.term {
		r.term, r.going = term, teardown{}
	}
	mesh := &v1alpha1.Mesh{}
	err := r.client.Get(ctx, req.NamespacedName, mesh)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	if err == nil {
		if err := dropFinalizer(ctx, r.client, mesh, formerFinalizer); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if err != nil || mesh.DeletionTimestamp != nil {
		return r.takeDown(ctx)
	}
	r.going = teardown{}
	return r.bringAbout(ctx, mesh)
}

func (r *meshReconciler) bringAbout(ctx context.Context, mesh *v1alpha1.Mesh) (reconcile.Result, error) {
	observed, err := r.observe(ctx, mesh)
	if err != nil {
		return reconcile.Result{}, err
	}
	var failed []error
	certificates, err := r.options.Certificates.Reconcile(ctx, mesh)
	if err != nil {
		failed = append(failed, err)
		certificates.Reason, certificates.Message = v1alpha1.MeshReasonPending, err.Error()
	}
	if err := r.apply(ctx, mesh, certificates.Signing); err != nil {
		failed = append(failed, err)
		observed.applyError = err
	}
	again, err := writeStatus(ctx, r.client, r.announce, mesh,
		func(m *v1alpha1.Mesh) []metav1.Condition { return m.Status.Conditions },
		func(m *v1alpha1.Mesh) status.Plan {
			m.Status = meshStatus(m, observed, certificates)
			return status.Plan{}
		})
	if err == nil && again == 0 {
		r.announceClaims(observed.refused)
	}
	if failed = append(failed, err); errors.Join(failed...) != nil {
		return reconcile.Result{}, errors.Join(failed...)
	}
	if again == 0 && !certificates.Next.IsZero() {
		again = max(time.Until(certificates.Next), time.Second)
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// announceClaims makes an Event of each pod whose claim to an address is refused, once. The node that reports the pod
// writes its conditions, so that none there could be relied on.
func (r *meshReconciler) announceClaims(refused []ingest.RefusedClaim) {
	now := make(map[ingest.RefusedClaim]bool, len(refused))
	for _, claim := range refused {
		now[claim] = true
		if !r.claimed[claim] {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: claim.Pod.Namespace, Name: claim.Pod.Name,
				UID: types.UID(claim.UID),
			}}
			pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
			r.announce.warn(pod, v1alpha1.MeshReasonAddressConflict, "Reconcile",
				"The mesh ignores an address: "+claimText(claim))
		}
	}
	r.claimed = now
}

// apply applies the admission policies, and once there is a CA, without which agents could not start, the node proxies.
// No agent runs before the policy that limits it.
func (r *meshReconciler) apply(ctx context.Context, mesh *v1alpha1.Mesh, signing bool) error {
	system, err := systemOwner(ctx, r.client, r.options.Namespace)
	if err != nil {
		return err
	}
	for _, obj := range deploy.Policies(r.options.Namespace) {
		obj.SetOwnerReferences(system)
		if err := r.applier.apply(ctx, mesh, obj); err != nil {
			return err
		}
	}
	if !signing {
		return nil
	}
	ds := deploy.Node(mesh, r.control(mesh))
	if ds.OwnerReferences, err = r.operatorOwner(ctx); err != nil {
		return err
	}
	if held, err := r.applier.held(ctx, mesh, ds); held || err != nil {
		return err
	}
	return r.applier.apply(ctx, mesh, ds)
}

func (r *meshReconciler) control(mesh *v1alpha1.Mesh) deploy.Control {
	return controlOf(mesh, r.options)
}

func controlOf(mesh *v1alpha1.Mesh, o Options) deploy.Control {
	return deploy.Control{
		Namespace: o.Namespace, Image: o.Image, EnvoyImage: mesh.Spec.Images.EnvoyOr(o.EnvoyImage),
		PullSecrets: mesh.Spec.Images.PullSecretsOr(nil),
		TrustDomain: mesh.Spec.TrustDomain, SPIRE: mesh.Spec.SPIRE(),
	}
}

// observe reads what the status is made from.
func (r *meshReconciler) observe(ctx context.Context, mesh *v1alpha1.Mesh) (meshObserved, error) {
	var o meshObserved
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil { // they are read, no more
		return o, err
	}
	var services networkingv1.ServiceCIDRList
	if served, err := r.kinds.served(networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR")); err != nil {
		return o, err
	} else if served {
		if err := r.client.List(ctx, &services); err != nil {
			return o, err
		}
	}
	o.network = networkOf(mesh.Spec.Network, nodes.Items, services.Items)
	var err error
	if o.pods, err = r.nodePods(ctx); err != nil {
		return o, err
	}
	o.daemonSet = &appsv1.DaemonSet{}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: names.NodeDaemonSet}, o.daemonSet)
	if apierrors.IsNotFound(err) {
		o.daemonSet, err = nil, nil
	}
	if err != nil {
		return o, err
	}
	if r.options.NodeReports != nil {
		o.reports = r.options.NodeReports()
	}
	if r.options.RefusedClaims != nil {
		o.refused = r.options.RefusedClaims()
	}
	o.gatewayAPI, err = r.kinds.served(gatewayKinds()...)
	return o, err
}

func (r *meshReconciler) nodePods(ctx context.Context) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := r.client.List(ctx, &pods, client.InNamespace(r.options.Namespace), client.MatchingLabels(deploy.NodeLabels()),
		client.UnsafeDisableDeepCopy)
	return pods.Items, err
}
