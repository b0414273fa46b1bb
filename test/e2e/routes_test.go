// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// toService is a parentRef.
func toService(name string) gwv1.ParentReference {
	group, kind, port := gwv1.Group(""), gwv1.Kind("Service"), gwv1.PortNumber(80)
	return gwv1.ParentReference{Group: &group, Kind: &kind, Name: gwv1.ObjectName(name), Port: &port}
}

func backend(name string) gwv1.HTTPBackendRef {
	port := gwv1.PortNumber(80)
	return gwv1.HTTPBackendRef{BackendRef: gwv1.BackendRef{
		BackendObjectReference: gwv1.BackendObjectReference{Name: gwv1.ObjectName(name), Port: &port},
	}}
}

func backendIn(namespace, name string) gwv1.HTTPBackendRef {
	b, ns := backend(name), gwv1.Namespace(namespace)
	b.Namespace = &ns
	return b
}

func underPath(path string) []gwv1.HTTPRouteMatch {
	kind := gwv1.PathMatchPathPrefix
	return []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Type: &kind, Value: &path}}}
}

func withHeader(name, value string) []gwv1.HTTPRouteMatch {
	return []gwv1.HTTPRouteMatch{{Headers: []gwv1.HTTPHeaderMatch{{Name: gwv1.HTTPHeaderName(name), Value: value}}}}
}

func httpRoute(name string, parent gwv1.ParentReference, rules ...gwv1.HTTPRouteRule) *gwv1.HTTPRoute {
	return &gwv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{parent}},
			Rules:           rules,
		},
	}
}

func rule(matches []gwv1.HTTPRouteMatch, backends ...gwv1.HTTPBackendRef) gwv1.HTTPRouteRule {
	return gwv1.HTTPRouteRule{Matches: matches, BackendRefs: backends}
}

// reroute has the first rule of a route lead elsewhere.
func (s *space) reroute(route, to string) {
	s.t.Helper()
	r := httpRoute(route, toService(route))
	r.Namespace = s.name
	edit(s.t, r, func() { r.Spec.Rules[0].BackendRefs = []gwv1.HTTPBackendRef{backend(to)} })
}

// conditionsOf are those that Fairway wrote about the first parent, or nil.
func conditionsOf(parents []gwv1.RouteParentStatus) []metav1.Condition {
	for _, p := range parents {
		if p.ControllerName == names.MeshController {
			return p.Conditions
		}
	}
	return nil
}

// says waits for a condition of an HTTPRoute of the current generation, with some texts in its message; an empty reason
// stands for any.
func (s *space) says(
	route, condition string, status metav1.ConditionStatus, reason string, message ...string,
) metav1.Condition {
	s.t.Helper()
	var c *metav1.Condition
	what := fmt.Sprintf("condition %s of route %s is %s", condition, route, status)
	eventually.Passes(s.t, what, func(look require.TestingT) {
		var r gwv1.HTTPRoute
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKey{Namespace: s.name, Name: route}, &r))
		c = meta.FindStatusCondition(conditionsOf(r.Status.Parents), condition)
		require.NotNil(look, c, "condition %s in %v", condition, r.Status.Parents)
		require.Equal(look, r.Generation, c.ObservedGeneration)
		require.Equal(look, status, c.Status, "%s: %s", c.Reason, c.Message)
		if reason != "" {
			require.Equal(look, reason, c.Reason, c.Message)
		}
		for _, text := range message {
			require.Contains(look, c.Message, text)
		}
	})
	return *c
}

// programmed waits until every ready proxy has acknowledged the route.
func (s *space) programmed(route string) {
	s.t.Helper()
	s.says(route, v1alpha1.EntryConditionProgrammed, metav1.ConditionTrue, "")
}

// versions makes a Service named app whose pods are app-v1 and app-v2, with a Service each.
func (s *space) versions(app string) {
	s.t.Helper()
	for _, v := range []string{"v1", "v2"} {
		s.server(app+"-"+v, podLabel("group", app))
		s.service(app+"-"+v, app+"-"+v)
	}
	s.service(app, "", group(app))
}

// grant lets HTTPRoutes of another namespace lead to Services of this one.
func (s *space) grant(to string) {
	s.t.Helper()
	s.create(&gwv1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Name: "grant"},
		Spec: gwv1.ReferenceGrantSpec{
			From: []gwv1.ReferenceGrantFrom{{Group: gwv1.GroupName, Kind: "HTTPRoute", Namespace: gwv1.Namespace(to)}},
			To:   []gwv1.ReferenceGrantTo{{Kind: "Service"}},
		},
	})
}
