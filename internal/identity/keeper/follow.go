// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Follow makes a replica's authority follow the CA Secret, leader or not. The manager's cache must hold the Secrets of
// the namespace; restrict it to that one, so that the operator needn't read all Secrets of the cluster.
func Follow(mgr ctrl.Manager, namespace string, authority *identity.Authority) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetNamespace() == namespace && o.GetName() == names.CASecret
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("ca-follower").
		For(&corev1.Secret{}, builder.WithPredicates(ours)).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(reconcile.Func(func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
			return ctrl.Result{}, Load(ctx, mgr.GetClient(), req.Namespace, authority)
		}))
}

// Load reads the CA Secret into an authority once. A Secret that is gone or can't be read leaves the authority as it
// is: the CA in memory is better than none, and the leader reports what is wrong.
func Load(ctx context.Context, r client.Reader, namespace string, authority *identity.Authority) error {
	secret := &corev1.Secret{}
	err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: names.CASecret}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Secret %s/%s: %w", namespace, names.CASecret, err)
	}
	state, err := identity.DecodeState(secret.Data)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "the CA Secret can't be used, continuing with the former CA",
			"namespace", namespace, "name", names.CASecret)
		return nil
	}
	authority.Update(state)
	return nil
}
