// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package olm

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// owner is whom fields that are applied belong to.
const owner = "olm-install"

// Apply installs the bundle in a namespace, or upgrades what another version of it installed there. The namespace is
// made as the bundle suggests where there is none.
func (b *Bundle) Apply(ctx context.Context, c client.Client, namespace string) error {
	objects, err := b.Objects(namespace)
	if err != nil {
		return err
	}
	if err := b.ensureNamespace(ctx, c, namespace); err != nil {
		return err
	}
	for _, o := range objects {
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: o}),
			client.FieldOwner(owner), client.ForceOwnership); err != nil {
			return fmt.Errorf("%s %s: %w", o.Kind(), o.Name(), err)
		}
	}
	return b.remove(ctx, c, namespace, func(u *unstructured.Unstructured) bool {
		return u.GetLabels()[ownerLabel] != b.CSV.Name()
	})
}

// Delete removes what the lifecycle manager removes when somebody deletes the ClusterServiceVersion: what it made,
// and what of the bundle's manifests is in the namespace and not about permissions. CRDs, and roles that the bundle
// has as manifests, stay.
func (b *Bundle) Delete(ctx context.Context, c client.Client, namespace string) error {
	if err := b.remove(ctx, c, namespace, func(*unstructured.Unstructured) bool { return true }); err != nil {
		return err
	}
	for _, o := range (installation{Bundle: b, namespace: namespace}).manifests() {
		if !namespaced[o.Kind()] || o.Kind() == "Role" || o.Kind() == "RoleBinding" {
			continue
		}
		if err := c.Delete(ctx, &unstructured.Unstructured{Object: o}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("%s %s: %w", o.Kind(), o.Name(), err)
		}
	}
	return nil
}

// remove deletes what belongs to a ClusterServiceVersion of the namespace, whatever its version.
func (b *Bundle) remove(ctx context.Context, c client.Client, namespace string,
	which func(*unstructured.Unstructured) bool,
) error {
	for _, kind := range []schema.GroupVersionKind{
		appsv1.SchemeGroupVersion.WithKind("Deployment"),
		{Group: rbacGroup, Version: "v1", Kind: "ClusterRoleBinding"},
		{Group: rbacGroup, Version: "v1", Kind: "ClusterRole"},
		{Group: rbacGroup, Version: "v1", Kind: "RoleBinding"},
		{Group: rbacGroup, Version: "v1", Kind: "Role"},
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
	} {
		found := &unstructured.UnstructuredList{}
		found.SetGroupVersionKind(kind)
		if err := c.List(ctx, found, client.MatchingLabels{
			ownerNamespaceLabel: namespace, ownerKindLabel: csvKind, managedLabel: "true",
		}); err != nil {
			return fmt.Errorf("%ss: %w", kind.Kind, err)
		}
		for n := range found.Items {
			u := &found.Items[n]
			if !which(u) {
				continue
			}
			if err := c.Delete(ctx, u); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("%s %s: %w", kind.Kind, u.GetName(), err)
			}
		}
	}
	return nil
}

func (b *Bundle) ensureNamespace(ctx context.Context, c client.Client, namespace string) error {
	o, err := b.Namespace()
	if err != nil {
		return err
	}
	if o.Name() != namespace {
		o = source.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}
	}
	if err := c.Create(ctx, &unstructured.Unstructured{Object: o}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return nil
}

// Wait waits until the bundle's Deployments have rolled out, which is when the lifecycle manager says Succeeded.
func (b *Bundle) Wait(ctx context.Context, c client.Client, namespace string) error {
	for _, d := range list(b.CSV.At("spec", "install", "spec", "deployments")) {
		last := "it isn't there"
		err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
			var got appsv1.Deployment
			if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: d.Str("name")}, &got); err != nil {
				return false, client.IgnoreNotFound(err)
			}
			if got.Status.ObservedGeneration < got.Generation || got.Spec.Replicas == nil {
				return false, nil
			}
			s := got.Status
			last = fmt.Sprintf("%d replicas, of which %d are new and %d available, of %d",
				s.Replicas, s.UpdatedReplicas, s.AvailableReplicas, *got.Spec.Replicas)
			return s.Replicas == *got.Spec.Replicas && s.UpdatedReplicas == s.Replicas && s.AvailableReplicas == s.Replicas, nil
		})
		if err != nil {
			return fmt.Errorf("the Deployment %s: %s: %w", d.Str("name"), last, err)
		}
	}
	return nil
}
