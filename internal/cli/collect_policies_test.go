// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// judged sets the status that a policy has of a controller, with a condition that is true before the given one.
func judged[P policy](p P, controller gwv1.GatewayController, kind, reason, message string) P {
	*p.Ancestors() = append(*p.Ancestors(), gwv1.PolicyAncestorStatus{
		ControllerName: controller,
		Conditions: []metav1.Condition{
			{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"},
			{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message},
		},
	})
	return p
}

// A policy that does less than it says is shown: who reads that all is well relies on what it was to refuse.
func TestStatusOfPoliciesThatAreNotInForce(t *testing.T) {
	ours := gwv1.GatewayController(names.MeshController)
	authorization := func(namespace, name string) *v1alpha1.AuthorizationPolicy {
		return &v1alpha1.AuthorizationPolicy{ObjectMeta: in(namespace, object(name, nil))}
	}
	twice := judged(authorization("shop", "twice"), ours, "Enforced", "Pending", "node b")
	objects := append(healthyMesh(),
		judged(twice, ours, "Enforced", "Pending", "node b"),
		judged(authorization("shop", "tried"), ours, "Enforced", v1alpha1.PolicyReasonDryRun, "Tried by all"),
		judged(judged(authorization("shop", "of-two"), ours, "Enforced", v1alpha1.PolicyReasonDryRun, ""),
			"someone.else/controller", "Accepted", "Invalid", "not for us"),
		judged(authorization("other", "outside"), ours, "Accepted", "NamespaceNotEnrolled", "other is not\nin the mesh"),
		authorization("shop", "new"),
		authorization("other", "for-nobody"),
		judged(&v1alpha1.AuthenticationPolicy{ObjectMeta: in("shop", object("tokens", nil))},
			ours, "Enforced", v1alpha1.PolicyReasonKeysMissing, "no keys"),
		judged(&v1alpha1.TrafficPolicy{ObjectMeta: in("shop", object("limits", nil))},
			ours, "Programmed", v1alpha1.PolicyReasonNotRequests, "no port is HTTP"),
		judged(&v1alpha1.HTTPExtension{ObjectMeta: in("shop", object("unused", nil))},
			ours, "Programmed", v1alpha1.ExtensionReasonNotUsed, "no rule names it"),
		judged(&v1alpha1.HTTPExtension{ObjectMeta: in("shop", object("script", nil))},
			ours, "Accepted", "RefNotPermitted", "ask the administrator"))
	r := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), objects...), names.SystemNamespace)
	assert.True(t, r.Healthy, "what is wrong with a policy is its owner's to mend: %v %v", r.Problems, r.Unknown)
	assert.Equal(t, []string{
		"AuthenticationPolicy shop/tokens: Enforced=False KeysMissing: no keys",
		"AuthorizationPolicy other/outside: Accepted=False NamespaceNotEnrolled: other is not in the mesh",
		"AuthorizationPolicy shop/new: the operator has not processed it yet",
		"AuthorizationPolicy shop/twice: Enforced=False Pending: node b",
		"HTTPExtension shop/script: Accepted=False RefNotPermitted: ask the administrator",
		"TrafficPolicy shop/limits: Programmed=False NotRequests: no port is HTTP",
	}, r.Policies)
	var out bytes.Buffer
	r.draw(&table{out: &out}, testNow)
	assert.Contains(t, out.String(), "\nPolicies and extensions with problems:\n  AuthenticationPolicy shop/tokens: ")
	assert.Contains(t, out.String(), "The mesh is well; 7 routes, policies or Services have problems, see above.")
}

// Where no waypoint has a route, nothing is to be said of routes.
func TestStatusWarnsOfRoutesWhereThereAreAny(t *testing.T) {
	for routes, warned := range map[int]bool{0: false, 1: true} {
		var out bytes.Buffer
		report{Waypoints: []waypointReport{{Name: "waypoint", Routes: &routes}}}.draw(&table{out: &out}, testNow)
		assert.Equal(t, warned, strings.Contains(out.String(), noBoundary), "%d routes", routes)
	}
}
