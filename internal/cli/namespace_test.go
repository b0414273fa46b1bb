// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// tidyShop is the healthy mesh, with nothing wrong in its namespace either.
func tidyShop(t *testing.T) []client.Object {
	t.Helper()
	accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"}
	return replace(t, healthyMesh(), routed("broken", accepted),
		unansweredRoute("shop", "of-an-ingress", refersTo("default", "", "", "of-another-class")))
}

func TestStatusOfANamespace(t *testing.T) {
	r := collectNamespace(t.Context(), fakeCluster(t, nil, tidyShop(t)...), names.SystemNamespace, "shop")
	require.True(t, r.Healthy, "%v %v", r.Problems, r.Unknown)
	golden(t, "namespace-healthy.txt", drawn(t, &r))
	var out bytes.Buffer
	require.NoError(t, (&outputFlag{"json"}).print(&out, r, nil))
	golden(t, "namespace-healthy.json", out.Bytes())
}

func TestStatusOfANamespaceWithProblems(t *testing.T) {
	headless := serving("shop", "headless", uses("own"))
	headless.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	objects := replace(t, healthyMesh(), shopUses("nowhere"), gateway("new", func(g *gwv1.Gateway) {
		g.Status.Conditions = nil
	}),
		serving("shop", "own", uses("new")), serving("shop", "off", uses(names.UseWaypointNone)), headless,
		pod("shop", "lost", "b", "", captured(corev1.ConditionFalse, "NetnsMissing", "no namespace")),
		unansweredRoute("shop", "without-group", refersTo("default", "Service", "", "reviews")),
		judged(&v1alpha1.TrafficPolicy{ObjectMeta: in("shop", object("limits", nil))}, names.MeshController, "Programmed",
			v1alpha1.PolicyReasonNotRequests, "no port is HTTP"),
		serving("other", "not-ours", uses("nowhere")))
	r := collectNamespace(t.Context(), fakeCluster(t, nil, objects...), names.SystemNamespace, "shop")
	require.False(t, r.Healthy)
	golden(t, "namespace-problems.txt", drawn(t, &r))
}

func TestStatusOfANamespaceOutsideOfTheMesh(t *testing.T) {
	c := fakeCluster(t, nil, healthyMesh()...)
	r := collectNamespace(t.Context(), c, names.SystemNamespace, "other")
	require.Equal(t, []string{"namespace other is not in the mesh: label it fairway.dev/mesh=enabled"}, r.Problems)
	r = collectNamespace(t.Context(), c, names.SystemNamespace, "missing")
	require.Equal(t, []string{"there is no namespace missing"}, r.Problems)

	// The mesh's own can't be in it.
	system := &corev1.Namespace{ObjectMeta: object(names.SystemNamespace, nil)}
	c = fakeCluster(t, nil, append(healthyMesh(), system)...)
	r = collectNamespace(t.Context(), c, names.SystemNamespace, names.SystemNamespace)
	require.True(t, r.Healthy, "%v", r.Problems)
}

// forbidding takes rights from a cluster, by what refused says of objects and lists.
func forbidding(c *cluster, refused func(any) bool) *cluster {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: "things"}, "", errors.New("no rights"))
	out := *c
	out.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if refused(o) {
				return err
			}
			return w.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if refused(l) {
				return err
			}
			return w.List(ctx, l, opts...)
		},
	})
	return &out
}

// Without the right to read the Mesh and the kinds of the Gateway API, what the operator has said of Services counts.
func TestStatusOfANamespaceForItsUsers(t *testing.T) {
	bound := func(name string, status metav1.ConditionStatus, reason, message string) *corev1.Service {
		s := serving("shop", name, nil)
		s.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ServiceConditionWaypointBound, Status: status, Reason: reason, Message: message},
		}
		return s
	}
	c := fakeCluster(t, nil, replace(t, tidyShop(t), bound("reviews", metav1.ConditionTrue,
		v1alpha1.ServiceReasonWaypointAccepted, ""), serving("shop", "direct", nil), serving("shop", "new", uses("own")),
		bound("soon", metav1.ConditionFalse, v1alpha1.ServiceReasonWaypointPending, ""))...)
	refused := func(o any) bool {
		switch o.(type) {
		case *v1alpha1.Mesh, *gwv1.GatewayList, *gwv1.HTTPRouteList, *gwv1.GRPCRouteList, *corev1.NodeList:
			return true
		}
		return false
	}
	r := collectNamespace(t.Context(), forbidding(c, refused), names.SystemNamespace, "shop")
	require.True(t, r.Healthy, "%v %v", r.Problems, r.Unknown)
	golden(t, "namespace-of-a-user.txt", drawn(t, &r))

	c = fakeCluster(t, nil, tidyShop(t)...)
	for name, refused := range map[string]func(any) bool{
		"you have no right to list pods in namespace shop: it takes the role view": func(o any) bool {
			_, is := o.(*corev1.PodList)
			return is
		},
		"namespace shop can't be read: you have no right to": func(o any) bool {
			_, is := o.(*corev1.Namespace)
			return is
		},
	} {
		r := collectNamespace(t.Context(), forbidding(c, refused), names.SystemNamespace, "shop")
		assert.False(t, r.Healthy)
		assert.Equal(t, []string{name}, r.Unknown)
		assert.Empty(t, r.Problems)
	}
}

// Whoever may list nothing is shown nothing that looks like an answer.
func TestStatusOfEveryTableWithoutRights(t *testing.T) {
	c := fakeCluster(t, nil, healthyMesh()...)
	all := func(any) bool { return true }
	r := collect(t.Context(), forbidding(c, all), names.SystemNamespace)
	golden(t, "status-without-rights.txt", drawn(t, &r))
	var out bytes.Buffer
	require.NoError(t, (&outputFlag{"json"}).print(&out, r, nil))
	golden(t, "status-without-rights.json", out.Bytes())

	// One kind after the other.
	for what, list := range map[string]client.ObjectList{
		whatPods: &corev1.PodList{}, whatGateways: &gwv1.GatewayList{}, whatHTTPRoutes: &gwv1.HTTPRouteList{},
		whatServices: &corev1.ServiceList{}, whatDeployments: &appsv1.DeploymentList{},
		whatNamespaces: &corev1.NamespaceList{}, whatNodes: &corev1.NodeList{},
		whatTrafficPolicies: &v1alpha1.TrafficPolicyList{},
	} {
		t.Run(what, func(t *testing.T) {
			reach := operators(t, inSync()...)
			few := forbidding(&cluster{client: c.client, reach: reach}, sameType(list))
			r := collect(t.Context(), few, names.SystemNamespace)
			assert.False(t, r.Healthy)
			assert.Empty(t, r.Problems)
			require.Len(t, r.Unknown, 1)
			assert.Contains(t, r.Unknown[0], "you have no right to read "+what+": ")
			assert.Equal(t, []string{what}, r.Unread)
			golden(t, "status-without-"+what+".txt", drawn(t, &r))
		})
	}
}

func sameType(list client.ObjectList) func(any) bool {
	return func(o any) bool { return reflect.TypeOf(o) == reflect.TypeOf(list) }
}
