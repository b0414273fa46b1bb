// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package olm

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/hack/packages/internal/apiserver"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

func there(t *testing.T, c client.Client, o source.Object) bool {
	t.Helper()
	want := &unstructured.Unstructured{Object: o}
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(want.GroupVersionKind())
	err := c.Get(context.Background(), client.ObjectKeyFromObject(want), got)
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil && got.GetDeletionTimestamp() == nil
}

// may asks the API server whether the operator may read Secrets of a namespace.
func may(t *testing.T, c client.Client, in string) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + namespace + ":fairway-operator",
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: in, Verb: "get", Version: "v1", Resource: "secrets",
		},
	}}
	if err := c.Create(context.Background(), review); err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

// roles that a ClusterServiceVersion has made, by version.
func roles(t *testing.T, c client.Client) map[string]int {
	t.Helper()
	var found rbacv1.ClusterRoleList
	if err := c.List(context.Background(), &found, client.HasLabels{ownerLabel}); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, r := range found.Items {
		out[r.Labels[ownerLabel]]++
	}
	return out
}

// TestInstall installs the bundle, upgrades it, and deletes its ClusterServiceVersion, with a real API server: the
// operator may read the Secrets of its own namespace and no others, what the former version made goes with it, and
// CRDs stay.
func TestInstall(t *testing.T) {
	_, c := apiserver.Start(t)
	ctx := context.Background()
	b := parsed(t, generated(t))
	if err := b.Apply(ctx, c, namespace); err != nil {
		t.Fatal(err)
	}
	objects, err := b.Objects(namespace)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if !there(t, c, o) {
			t.Errorf("%s %s isn't there", o.Kind(), o.Name())
		}
	}
	suggested, err := b.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	ns := &unstructured.Unstructured{}
	ns.SetGroupVersionKind((&unstructured.Unstructured{Object: suggested}).GroupVersionKind())
	if err := c.Get(ctx, client.ObjectKey{Name: namespace}, ns); err != nil ||
		ns.GetLabels()["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("the namespace has the labels %v: %v", ns.GetLabels(), err)
	}
	// RBAC of the API server follows what is written a moment later.
	if err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 10*time.Second, true,
		func(context.Context) (bool, error) { return may(t, c, namespace), nil }); err != nil {
		t.Error("the operator may not read its own Secrets")
	}
	if may(t, c, "default") {
		t.Error("the operator may read the Secrets of others")
	}

	next := map[string][]byte{}
	for name, content := range generated(t) {
		next[name] = bytes.ReplaceAll(content, []byte("fairway.v0.1.0"), []byte("fairway.v0.2.0"))
	}
	upgraded := parsed(t, next)
	for range 2 { // once more changes nothing
		if err := upgraded.Apply(ctx, c, namespace); err != nil {
			t.Fatal(err)
		}
	}
	if got := roles(t, c); got["fairway.v0.1.0"] != 0 || got["fairway.v0.2.0"] != 2 {
		t.Errorf("ClusterRoles by version: %v", got)
	}

	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// No controller runs, so nothing rolls out.
	if err := upgraded.Wait(soon, c, namespace); err == nil || !strings.Contains(err.Error(), "fairway-operator") {
		t.Errorf("waited for a Deployment that nobody rolls out: %v", err)
	}

	if err := upgraded.Delete(ctx, c, namespace); err != nil {
		t.Fatal(err)
	}
	if objects, err = upgraded.Objects(namespace); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		stays := o.Kind() == "CustomResourceDefinition" || o.Str("metadata", "labels", ownerLabel) == "" &&
			(o.Kind() == "ClusterRole" || o.Kind() == "Role" || o.Kind() == "RoleBinding")
		if got := there(t, c, o); got != stays {
			t.Errorf("%s %s is there: %v", o.Kind(), o.Name(), got)
		}
	}
}
