// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

func TestWaypointList(t *testing.T) {
	objects := append(bookshop(t), gateway("idle", func(g *gwv1.Gateway) { g.Status.Conditions = nil }),
		&corev1.Namespace{ObjectMeta: object("shop", map[string]string{names.LabelMesh: names.MeshEnabled})})
	l, err := listWaypoints(t.Context(), fakeCluster(t, nil, objects...), names.SystemNamespace, "")
	require.NoError(t, err)
	var out bytes.Buffer
	table := &table{out: &out}
	l.draw(table)
	require.NoError(t, table.err)
	golden(t, "waypoint-list.txt", out.Bytes())

	l, err = listWaypoints(t.Context(), fakeCluster(t, nil, objects...), names.SystemNamespace, "bookshop")
	require.NoError(t, err)
	require.Len(t, l.Waypoints, 1)
	_, err = listWaypoints(t.Context(), fakeCluster(t, nil, objects...), names.SystemNamespace, "missing")
	require.ErrorContains(t, err, "there is no namespace missing")

	denied := forbidding(fakeCluster(t, nil, objects...), sameType(&gwv1.GatewayList{}))
	_, err = listWaypoints(t.Context(), denied, names.SystemNamespace, "")
	require.ErrorContains(t, err, "waypoints could not be asked for: you have no right to")
	denied = forbidding(fakeCluster(t, nil, objects...), sameType(&corev1.ServiceList{}))
	l, err = listWaypoints(t.Context(), denied, names.SystemNamespace, "")
	require.NoError(t, err)
	require.Nil(t, l.Waypoints[0].Services, "which are unknown, not none")
	require.Equal(t, []string{"you have no right to read Services"}, l.CouldNotAsk)
}

// Against an API server: what apply makes is taken, and what it refuses stays as it is.
func TestWaypointApply(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	kubeconfig := as(t, cfg, "")
	apply := func(args ...string) (string, string, error) {
		return does(t, append([]string{"waypoint", "apply", "-n", "shop", "--kubeconfig", kubeconfig}, args...)...)
	}
	key := client.ObjectKey{Namespace: "shop", Name: "edge"}

	_, _, err = apply()
	require.ErrorContains(t, err, "there is no namespace shop")
	namespace := &corev1.Namespace{ObjectMeta: object("shop", nil)}
	require.NoError(t, c.Create(t.Context(), namespace))
	_, _, err = apply()
	require.ErrorContains(t, err, "label it fairway.dev/mesh=enabled first")
	namespace.Labels = map[string]string{names.LabelMesh: names.MeshEnabled}
	require.NoError(t, c.Update(t.Context(), namespace))

	out, notes, err := apply("--name", "edge", "--dry-run", "-o", "yaml")
	require.NoError(t, err)
	require.Contains(t, notes, "would be applied (dry run)")
	var manifest gwv1.Gateway
	require.NoError(t, yaml.UnmarshalStrict([]byte(out), &manifest))
	require.Equal(t, gwv1.ObjectName(names.WaypointClass), manifest.Spec.GatewayClassName)
	require.NotContains(t, out, "status")
	require.True(t, apierrors.IsNotFound(c.Get(t.Context(), key, &gwv1.Gateway{})))

	for range 2 { // the second leaves it as it is
		out, _, err = apply("--name", "edge")
		require.NoError(t, err)
		require.Contains(t, out, "  kubectl label namespace shop fairway.dev/use-waypoint=edge\n")
	}
	g := &gwv1.Gateway{}
	require.NoError(t, c.Get(t.Context(), key, g))
	require.Equal(t, int64(1), g.Generation)

	_, notes, err = apply("--name", "edge", "--wait", "--timeout", "3s")
	require.ErrorContains(t, err, "the waypoint does not serve yet: ")
	require.Contains(t, notes, "waiting: ")
	done := make(chan struct{})
	go func() { // what the operator does
		defer close(done)
		eventually.Passes(t, "a status is taken", func(look require.TestingT) {
			require.NoError(look, c.Get(t.Context(), key, g))
			g.Status.Conditions = []metav1.Condition{{
				Type: "Programmed", Status: metav1.ConditionTrue, Reason: "Programmed", ObservedGeneration: g.Generation,
				LastTransitionTime: metav1.Now(),
			}}
			require.NoError(look, c.Status().Update(t.Context(), g))
		})
	}()
	out, _, err = apply("--name", "edge", "--wait", "--timeout", "30s")
	<-done
	require.NoError(t, err)
	require.Contains(t, out, "it serves")

	// One that somebody has written in another way is a waypoint as well.
	own := &gwv1.Gateway{ObjectMeta: in("shop", object("own", nil)), Spec: *g.Spec.DeepCopy()}
	own.Spec.Listeners[0].Name, own.Spec.Listeners[0].Port = "inner", 16008
	own.Finalizers = []string{"test.example/keeps"}
	require.NoError(t, c.Create(t.Context(), own))
	for _, dry := range []string{"--dry-run=true", "--dry-run=false"} {
		out, _, err = apply("--name", "own", dry)
		require.NoError(t, err)
		require.Contains(t, out, "Gateway shop/own is a waypoint already, and is left as it is\n")
	}
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(own), own))
	require.Len(t, own.Spec.Listeners, 1)
	require.NoError(t, c.Delete(t.Context(), own))
	_, _, err = apply("--name", "own")
	require.ErrorContains(t, err, "is being deleted, and there while its finalizers are (test.example/keeps): wait until")

	other := &gwv1.Gateway{ObjectMeta: in("shop", object("other", nil)), Spec: g.Spec}
	other.Spec.GatewayClassName = "another"
	require.NoError(t, c.Create(t.Context(), other))
	_, _, err = apply("--name", "other")
	require.ErrorContains(t, err, "of class another: choose another --name")
	_, _, err = apply("--name", "1st")
	require.ErrorContains(t, err, "--name 1st: ")
}
