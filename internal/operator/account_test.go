// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestWaypointServiceAccount: the label of a Gateway makes no pod a waypoint. The Gateway must be there, of our class, and
// the account must be the one that was made for it.
func TestWaypointServiceAccount(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{GatewayAPI: apiserver.Standard})
	c, err := client.New(cfg, client.Options{Scheme: Scheme()})
	require.NoError(t, err)
	const ns = "default"
	class := func(name, controller string) {
		require.NoError(t, c.Create(t.Context(), &gwv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       gwv1.GatewayClassSpec{ControllerName: gwv1.GatewayController(controller)},
		}))
	}
	gateway := func(name, class string) *gwv1.Gateway {
		g := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: gwv1.GatewaySpec{
			GatewayClassName: gwv1.ObjectName(class),
			Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortHBONE, Protocol: "HBONE"}},
		}}
		require.NoError(t, c.Create(t.Context(), g))
		return g
	}
	account := func(name string, owner *gwv1.Gateway) {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		if owner != nil {
			require.NoError(t, controllerutil.SetControllerReference(owner, sa, c.Scheme()))
		}
		require.NoError(t, c.Create(t.Context(), sa))
	}
	account("ours", gateway("ours", names.WaypointClass))
	account("foreign", gateway("foreign", "another"))
	gateway("taken", names.WaypointClass)
	account("taken", nil)
	gateway("bare", names.WaypointClass)
	account("stranger", nil)

	view := pods{c}
	check := func(what string) {
		t.Helper()
		for _, name := range []string{"foreign", "taken", "bare", "stranger", "nothing"} {
			_, ok := view.WaypointServiceAccount(ns, name)
			require.False(t, ok, "%s: %s", what, name)
		}
		got, ok := view.WaypointServiceAccount(ns, "ours")
		require.True(t, ok, what)
		require.Equal(t, "ours", got)
	}
	check("the operator has yet to make the class again")
	class(names.WaypointClass, names.GatewayController)
	class("another", "example.org/controller")
	check("with classes")
	_, ok := view.WaypointServiceAccount("another-namespace", "ours")
	require.False(t, ok)

	require.NoError(t, c.Delete(t.Context(), &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: names.WaypointClass}}))
	class(names.WaypointClass, "example.org/controller")
	_, ok = view.WaypointServiceAccount(ns, "ours")
	require.False(t, ok, "the class is another controller's")
}
