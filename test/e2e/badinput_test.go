// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Each mistake ends in a condition or a clear error, and everything else goes on.

// twoServers is a namespace of the mesh: a client, a server for the mistake, and another for what goes on.
func twoServers(t *testing.T) *space {
	t.Helper()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.server("other")
	s.service("other", "other")
	s.captured("client", "server", "other")
	return s
}

// breaks waits until a URL answers that the route is broken.
func breaks(s *space, url string) {
	s.t.Helper()
	eventually.Passes(s.t, "500 of "+url, func(look require.TestingT) {
		a, err := s.get("client", url)
		require.NoError(look, err)
		require.Equal(look, http.StatusInternalServerError, a.Status)
	})
}

func TestUnknownBackend(t *testing.T) {
	t.Parallel()
	s := twoServers(t)
	s.create(httpRoute("good", toService("other"), rule(nil, backend("other"))))
	s.programmed("good")
	s.create(httpRoute("bad", toService("server"), rule(underPath("/bad"), backend("nobody")),
		rule(nil, backend("server"))))
	c := s.says("bad", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionFalse,
		string(gwv1.RouteReasonBackendNotFound))
	require.Contains(t, c.Message, "nobody")
	breaks(s, "http://server/bad")
	s.answers("client", "http://server/good", "server")
	s.answers("client", "http://other/", "other")
	// The backend appears, and the route is whole.
	s.server("nobody")
	s.service("nobody", "nobody")
	s.says("bad", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionTrue, "")
	s.answers("client", "http://server/bad", "nobody")
}

func TestMissingGrant(t *testing.T) {
	t.Parallel()
	s, there := enrolled(t), enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	there.server("far")
	there.service("far", "far")
	s.captured("client", "server")
	there.captured("far")
	s.create(httpRoute("route", toService("server"), rule(underPath("/far"), backendIn(there.name, "far")),
		rule(nil, backend("server"))))
	s.says("route", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionFalse,
		string(gwv1.RouteReasonRefNotPermitted))
	breaks(s, "http://server/far")
	s.answers("client", "http://server/", "server")
	there.grant(s.name)
	s.says("route", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionTrue, "")
	s.answers("client", "http://server/far", "far")
}

func TestHTTPRouteAndGRPCRouteInConflict(t *testing.T) {
	t.Parallel()
	s := twoServers(t)
	s.create(&gwv1.GRPCRoute{
		ObjectMeta: metaOf("grpc"),
		Spec: gwv1.GRPCRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{toService("server")}},
			Rules: []gwv1.GRPCRouteRule{
				{BackendRefs: []gwv1.GRPCBackendRef{{BackendRef: backend("server").BackendRef}}},
			},
		},
	})
	s.create(httpRoute("http", toService("server"), rule(nil, backend("server"))))
	s.create(httpRoute("good", toService("other"), rule(nil, backend("other"))))
	c := s.says("http", string(gwv1.RouteConditionAccepted), metav1.ConditionFalse, "")
	require.Contains(t, c.Message, "GRPCRoute")
	eventually.Passes(t, "the GRPCRoute is Accepted", func(look require.TestingT) {
		var r gwv1.GRPCRoute
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKey{Namespace: s.name, Name: "grpc"}, &r))
		require.True(look,
			meta.IsStatusConditionTrue(conditionsOf(r.Status.Parents), string(gwv1.RouteConditionAccepted)))
	})
	s.programmed("good")
	s.answers("client", "http://other/", "other")
}

func TestImpossibleFiltersAreRefusedAtTheDoor(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	port := gwv1.PortNumber(8443)
	host := gwv1.PreciseHostname("elsewhere.example")
	route := httpRoute("both", toService("server"), gwv1.HTTPRouteRule{
		BackendRefs: []gwv1.HTTPBackendRef{backend("server")},
		Filters: []gwv1.HTTPRouteFilter{
			{Type: gwv1.HTTPRouteFilterRequestRedirect, RequestRedirect: &gwv1.HTTPRequestRedirectFilter{Port: &port}},
			{Type: gwv1.HTTPRouteFilterURLRewrite, URLRewrite: &gwv1.HTTPURLRewriteFilter{Hostname: &host}},
		},
	})
	route.Namespace = s.name
	err := world.client.Create(t.Context(), route)
	require.True(t, apierrors.IsInvalid(err), "%v", err)
}

func TestAFilterThatNobodyKnows(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.create(httpRoute("route", toService("server"),
		gwv1.HTTPRouteRule{
			Matches:     underPath("/bad"),
			BackendRefs: []gwv1.HTTPBackendRef{backend("server")},
			Filters: []gwv1.HTTPRouteFilter{{
				Type:         gwv1.HTTPRouteFilterExtensionRef,
				ExtensionRef: &gwv1.LocalObjectReference{Group: "example.com", Kind: "Wish", Name: "wish"},
			}},
		},
		rule(nil, backend("server"))))
	eventually.Passes(t, "a condition that complains", func(look require.TestingT) {
		var r gwv1.HTTPRoute
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKey{Namespace: s.name, Name: "route"}, &r))
		conditions, complains := conditionsOf(r.Status.Parents), false
		for _, c := range conditions {
			bad := metav1.ConditionFalse
			if c.Type == string(gwv1.RouteConditionPartiallyInvalid) {
				bad = metav1.ConditionTrue
			}
			complains = complains || c.Status == bad
		}
		require.True(look, complains, "%v", conditions)
	})
	breaks(s, "http://server/bad") // what can't be carried out is never left out silently
	s.answers("client", "http://server/", "server")
}

func TestWaypointLabelThatNamesNothing(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	svc := s.service("server", "server",
		through("nowhere"))
	s.service("free", "server")
	s.captured("client", "server")
	s.create(httpRoute("route", toService("server"), rule(nil, backend("server"))))
	c := s.says("route", v1alpha1.EntryConditionProgrammed, metav1.ConditionFalse, "")
	require.Contains(t, c.Message, "nowhere")
	s.refuses("client", "http://server/") // a Service whose waypoint is missing is closed, not open
	s.answers("client", "http://free/", "server")

	relabel(t, svc, names.LabelUseWaypoint, "")
	s.programmed("route")
	s.answers("client", "http://server/", "server")
}
