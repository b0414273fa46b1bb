// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestTheClassStays: deleting the class takes no waypoint along; the class is made again.
func TestTheClassStays(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ns := o.namespace("class-")
	o.create(waypoint(ns, "waypoint"))
	d := get(o, "deployed", ns, "waypoint", exists[*appsv1.Deployment])
	class := get(o, "the class is there", "", names.WaypointClass, exists[*gwv1.GatewayClass])
	// Nothing holds it: it must be free to go with a mesh whose operator went first.
	require.Empty(t, class.Finalizers)
	require.NoError(t, o.Delete(context.Background(), class))
	get(o, "the class comes back", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
		if c.UID == class.UID || len(c.Status.Conditions) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	// A change that is carried out shows that the Gateway was looked at since.
	change(o, ns, "waypoint", func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{Labels: map[gwv1.LabelKey]gwv1.LabelValue{"a": "b"}}
	})
	now := get(o, "the waypoint is looked after", ns, "waypoint", func(d *appsv1.Deployment) error {
		if d.Labels["a"] != "b" {
			return fmt.Errorf("labels %v", d.Labels)
		}
		return nil
	})
	require.Equal(t, d.UID, now.UID)
	require.Nil(t, now.DeletionTimestamp)
	finishDaemonSet(o)
}

// TestClassesAndXMesh: statuses of classes and of the experimental XMesh.
func TestClassesAndXMesh(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ctx := context.Background()
	other := &gwv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "fairway-other"},
		Spec:       gwv1.GatewayClassSpec{ControllerName: names.GatewayController},
	}
	good := &gwxv1alpha1.XMesh{
		ObjectMeta: metav1.ObjectMeta{Name: "good"},
		Spec:       gwxv1alpha1.MeshSpec{ControllerName: names.MeshController},
	}
	bad := &gwxv1alpha1.XMesh{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: gwxv1alpha1.MeshSpec{
		ControllerName: names.MeshController, ParametersRef: &gwv1.ParametersReference{Kind: "ConfigMap", Name: "x"},
	}}
	o.create(other, good, bad)
	t.Cleanup(func() {
		for _, obj := range []client.Object{other, good, bad} {
			require.NoError(t, o.Delete(ctx, obj))
		}
	})
	get(o, "another class", "", other.Name, func(c *gwv1.GatewayClass) error {
		return condition(c.Status.Conditions, "Accepted", metav1.ConditionFalse, "Unsupported")
	})
	x := get(o, "a good XMesh", "", good.Name, func(x *gwxv1alpha1.XMesh) error {
		return condition(x.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
	for i := 1; i < len(x.Status.SupportedFeatures); i++ {
		require.Less(t, x.Status.SupportedFeatures[i-1].Name, x.Status.SupportedFeatures[i].Name)
	}
	require.Contains(t, x.Status.SupportedFeatures, gwv1.SupportedFeature{Name: "MeshConsumerRoute"})
	get(o, "a bad XMesh", "", bad.Name, func(x *gwxv1alpha1.XMesh) error {
		return condition(x.Status.Conditions, "Accepted", metav1.ConditionFalse, "InvalidParameters")
	})

	// A class with parameters that do not exist, then do.
	change(o, "", names.WaypointClass, func(c *gwv1.GatewayClass) {
		c.Spec.ParametersRef = &gwv1.ParametersReference{
			Group: "fairway.dev", Kind: "ProxyParameters", Name: "p",
			Namespace: new(gwv1.Namespace("default")),
		}
	})
	get(o, "parameters are missing", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
		return condition(c.Status.Conditions, "Accepted", metav1.ConditionFalse, "InvalidParameters")
	})
	p := &v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	o.create(p)
	t.Cleanup(func() { require.NoError(t, o.Delete(ctx, p)) })
	get(o, "parameters are there", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
		return condition(c.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
	finishDaemonSet(o)
}
