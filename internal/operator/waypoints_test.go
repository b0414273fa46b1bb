// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// waypointWorld makes what a waypoint consists of, as the operator and the cluster's controllers do, or as a forger
// would.
type waypointWorld struct {
	client.Client
	t *testing.T
}

func newWaypointWorld(t *testing.T) waypointWorld {
	t.Helper()
	cfg := apiserver.Start(t, apiserver.Options{GatewayAPI: apiserver.Standard})
	c, err := client.New(cfg, client.Options{Scheme: scheme()})
	require.NoError(t, err)
	return waypointWorld{c, t}
}

// make creates an object; with an owner it is controlled by it.
func (w waypointWorld) make(o, owner client.Object) {
	w.t.Helper()
	if owner != nil {
		require.NoError(w.t, controllerutil.SetControllerReference(owner, o, w.Scheme()))
	}
	require.NoError(w.t, w.Create(w.t.Context(), o))
}

func (w waypointWorld) namespace(name, mesh string) {
	w.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{names.LabelMesh: mesh}}},
		nil)
}

func (w waypointWorld) class(name, controller string) {
	w.make(&gwv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       gwv1.GatewayClassSpec{ControllerName: gwv1.GatewayController(controller)},
	}, nil)
}

func (w waypointWorld) gateway(namespace, name, class string) *gwv1.Gateway {
	g := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: gwv1.GatewaySpec{
		GatewayClassName: gwv1.ObjectName(class),
		Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: names.Domain + "/MTLS"}},
	}}
	w.make(g, nil)
	return g
}

var managed = map[string]string{names.LabelManagedBy: names.ManagedBy}

func (w waypointWorld) account(namespace, name string, owner client.Object) {
	w.make(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: managed}}, owner)
}

var podTemplate = corev1.PodTemplateSpec{
	ObjectMeta: metav1.ObjectMeta{Labels: managed},
	Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
}

func (w waypointWorld) deployment(namespace, name string, owner client.Object) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: managed},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: managed}, Template: podTemplate},
	}
	w.make(d, owner)
	return d
}

func (w waypointWorld) replicaSet(namespace, name string, owner client.Object) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: managed},
		Spec:       appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: managed}, Template: podTemplate},
	}
	w.make(rs, owner)
	return rs
}

// pod is one with the label of a Gateway.
func (w waypointWorld) pod(namespace, name, account, gateway string, owner client.Object) auth.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			names.LabelGatewayName: gateway,
		}},
		Spec: corev1.PodSpec{ServiceAccountName: account, Containers: podTemplate.Spec.Containers},
	}
	w.make(p, owner)
	return auth.Pod{Namespace: namespace, Name: name, UID: string(p.UID), ServiceAccount: account}
}

// waypoint makes a whole one, and returns its pod and what that comes from.
func (w waypointWorld) waypoint(namespace, name string) (auth.Pod, *appsv1.ReplicaSet, *gwv1.Gateway) {
	g := w.gateway(namespace, name, names.WaypointClass)
	w.account(namespace, name, g)
	rs := w.replicaSet(namespace, name+"-1", w.deployment(namespace, name, g))
	return w.pod(namespace, name+"-1-a", name, name, rs), rs, g
}

// TestWaypoint: neither the label of a Gateway nor its account makes a pod a waypoint. The namespace must be enrolled,
// the Gateway of our class, and the pod one of the Deployment that was made for it.
func TestWaypoint(t *testing.T) {
	w := newWaypointWorld(t)
	view := pods{w}
	w.namespace("shop", names.MeshEnabled)
	w.namespace("outside", "")
	ours, rs, g := w.waypoint("shop", "ours")
	outside, _, _ := w.waypoint("outside", "ours")
	w.account("shop", "thief", nil)
	foreign := w.gateway("shop", "foreign", "another")
	w.account("shop", "foreign", foreign)

	bare := w.gateway("shop", "bare", names.WaypointClass)
	w.account("shop", "bare", nil)
	side := w.replicaSet("shop", "side", nil)
	second := w.replicaSet("shop", "second-1", w.deployment("shop", "second", g))
	recreated := w.replicaSet("shop", "recreated", w.deployment("shop", "former", nil))
	orphan := w.pod("shop", "orphan", "ours", "ours", recreated)
	require.NoError(t, w.Delete(t.Context(), recreated))
	gone := recreated
	w.make(&appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: gone.Name, Labels: managed},
		Spec:       gone.Spec,
	}, nil)

	for name, c := range map[string]struct {
		pod     auth.Pod
		gateway string
		says    string
	}{
		"the waypoint's":              {ours, "ours", ""},
		"in a namespace not enrolled": {outside, "ours", "label it fairway.dev/mesh=enabled"},
		"another account":             {w.pod("shop", "thief", "thief", "ours", rs), "ours", "service account"},
		"an account nobody made":      {w.pod("shop", "bare", "bare", "bare", bare), "bare", "service account"},
		"Gateway of another class": {
			w.pod("shop", "foreign", "foreign", "foreign", foreign), "foreign",
			"not a waypoint",
		},
		"no Gateway": {w.pod("shop", "stranger", "ours", "nothing", rs), "nothing", "not found"},
		"of a ReplicaSet nobody made": {
			w.pod("shop", "nobodys", "ours", "ours",
				&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "none", UID: "x"}}), "ours",
			"not one of the Deployment",
		},
		"no owner":                    {w.pod("shop", "loose", "ours", "ours", nil), "ours", "not one of the Deployment"},
		"owned by the Gateway itself": {w.pod("shop", "direct", "ours", "ours", g), "ours", "not one of the Deployment"},
		"of a ReplicaSet beside it":   {w.pod("shop", "side-a", "ours", "ours", side), "ours", "not one of the Deployment"},
		"of a second Deployment": {
			w.pod("shop", "second-a", "ours", "ours", second), "ours",
			"not one of the Deployment",
		},
		"of a ReplicaSet that is gone": {orphan, "ours", "not one of the Deployment"},
		"of an earlier name": {
			auth.Pod{Namespace: "shop", Name: ours.Name, UID: "other", ServiceAccount: "ours"},
			"ours", "replaced",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := view.waypoint(c.pod, c.gateway)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}

	w.class(names.WaypointClass, names.GatewayController)
	require.NoError(t, view.waypoint(ours, "ours"))
	require.NoError(t, w.Delete(t.Context(), &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: names.WaypointClass}}))
	w.class(names.WaypointClass, "example.org/controller")
	require.ErrorIs(t, view.waypoint(ours, "ours"), auth.ErrForbidden, "the class is another controller's")
}
