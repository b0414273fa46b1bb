// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Nothing of the mesh has a finalizer, since an operator that is removed first could not take it away any more.
// Instead, what must outlast the Mesh until the operator has let pods go has a second owner, and Kubernetes removes it
// once both are gone: in whatever order they go.

// formerFinalizer was on every Mesh once.
const formerFinalizer = names.Domain + "/node-proxies"

// dropFinalizer removes a finalizer that the operator does not use any more.
func dropFinalizer(ctx context.Context, c client.Client, obj client.Object, finalizer string) error {
	before, ok := obj.DeepCopyObject().(client.Object)
	if !ok || !controllerutil.RemoveFinalizer(obj, finalizer) {
		return nil
	}
	// The patch changes the finalizer list as it was read, so it must not be applied to a newer one.
	if err := c.Patch(ctx, obj, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("remove finalizer %s: %w", finalizer, err)
	}
	return nil
}

// meshOwner makes an object go with the Mesh, without holding up the Mesh's deletion.
func meshOwner(mesh *v1alpha1.Mesh) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindMesh, Name: mesh.Name, UID: mesh.UID,
	}
}

// operatorOwner makes the node proxies outlast the Mesh while there is an operator to take them down in order. Outside
// of a cluster it has no Deployment.
func (r *meshReconciler) operatorOwner(ctx context.Context) ([]metav1.OwnerReference, error) {
	d := &appsv1.Deployment{}
	// Not in the cache, which holds what the operator manages.
	err := r.applier.live.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: names.OperatorDeployment}, d)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Deployment %s: %w", names.OperatorDeployment, err)
	}
	return []metav1.OwnerReference{{
		APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "Deployment", Name: d.Name, UID: d.UID,
	}}, nil
}

// systemOwner is the second owner of what is in no namespace, or in another one, where the operator's Deployment can
// own nothing: its namespace.
func systemOwner(ctx context.Context, c client.Reader, namespace string) ([]metav1.OwnerReference, error) {
	ns := &corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: namespace}, ns); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", namespace, err)
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: ns.Name, UID: ns.UID}}, nil
}
