// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// An API server that refuses to answer is no uninstallation, unless the agent saw one begin.
func TestLeaving(t *testing.T) {
	daemonSets := schema.GroupResource{Group: "apps", Resource: "daemonsets"}
	forbidden := apierrors.NewForbidden(daemonSets, names.NodeDaemonSet, errors.New("no rule"))
	unauthorized := apierrors.NewUnauthorized("the token has expired")
	ds := func(change func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
		d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet}}
		change(d)
		return d
	}
	going := func(o client.Object) client.Object {
		o.SetDeletionTimestamp(new(metav1.Now()))
		o.SetFinalizers([]string{"example.org/wait"})
		return o
	}
	mesh := func() client.Object { return &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}} }
	namespace := func() client.Object {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}}
	}
	account := func() client.Object {
		return &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeServiceAccount},
		}
	}
	there := []client.Object{mesh(), namespace(), account()}
	for name, c := range map[string]struct {
		err     error
		objects []client.Object
		cached  []client.Object
		leaving bool
	}{
		"a restart":             {nil, []client.Object{ds(func(*appsv1.DaemonSet) {})}, there, false},
		"the DaemonSet is gone": {nil, nil, there, true},
		"the DaemonSet goes":    {nil, []client.Object{going(ds(func(*appsv1.DaemonSet) {}))}, there, true},
		"the namespace goes, its pods first": {
			nil, []client.Object{ds(func(*appsv1.DaemonSet) {}), going(namespace())}, there, true,
		},
		"another node selector": {
			nil, []client.Object{ds(func(d *appsv1.DaemonSet) {
				d.Spec.Template.Spec.NodeSelector = map[string]string{
					"a": "b",
				}
			})}, there, true,
		},
		"an API server that is away":   {errors.New("connection refused"), nil, there, false},
		"a token that expired":         {unauthorized, nil, there, false},
		"rights that somebody changed": {forbidden, nil, there, false},
		"the namespace went before":    {unauthorized, nil, []client.Object{mesh(), going(namespace()), account()}, true},
		"the Mesh went before":         {forbidden, nil, []client.Object{namespace(), account()}, true},
		"the Mesh goes":                {forbidden, nil, []client.Object{going(mesh()), namespace(), account()}, true},
		"the operator went before":     {unauthorized, nil, []client.Object{mesh(), namespace()}, true},
	} {
		t.Run(name, func(t *testing.T) {
			scheme, err := newScheme()
			require.NoError(t, err)
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
			live := fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(c.objects, node)...).WithInterceptorFuncs(
				interceptor.Funcs{
					Get: func(ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object,
						opts ...client.GetOption,
					) error {
						if c.err != nil {
							return c.err
						}
						return w.Get(ctx, key, o, opts...)
					},
				}).Build()
			u := &uninstaller{
				client: live, cached: fake.NewClientBuilder().WithScheme(scheme).WithObjects(c.cached...).Build(),
				log: testLog(), node: "node1", system: names.SystemNamespace,
			}
			leaving, why := u.leaving(t.Context())
			require.Equal(t, c.leaving, leaving)
			require.Equal(t, leaving, why != "")
		})
	}
}
