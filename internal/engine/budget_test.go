// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestABudgetIsGivenBack: what the oldest routes of a namespace no longer need, the younger ones have.
func TestABudgetIsGivenBack(t *testing.T) {
	h := newHarness(t)
	var old *gwv1.HTTPRoute
	for _, obj := range readManifests(t, "testdata/over-budget/input.yaml") {
		h.Set(obj)
		if r, ok := obj.(*gwv1.HTTPRoute); ok && r.Name == "old" {
			old = r
		}
	}
	h.Synced()
	h.Process()
	require.NotNil(t, old)
	accepted := func() string {
		r := h.reports[model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "consumer-a", Name: "young"}]
		return r.Parents[0].Conditions[0].Reason
	}
	require.Equal(t, string(ingest.ReasonOverBudget), accepted())
	less := old.DeepCopy()
	less.Generation++
	less.Spec.Rules[0].Matches = less.Spec.Rules[0].Matches[:1]
	h.Set(less)
	h.Process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), accepted())
	h.Set(old)
	h.Process()
	require.Equal(t, string(ingest.ReasonOverBudget), accepted())
	h.Delete(old)
	h.Process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), accepted())
}

// TestLargeRoutes: what a route says is made for each match of a rule and for each port, so one that is small itself could
// take all the memory that the operator and a waypoint have.
func TestLargeRoutes(t *testing.T) {
	for _, author := range []string{"owner", "consumer-a"} {
		t.Run(author, func(t *testing.T) {
			h := newHarness(t)
			for _, obj := range readManifests(t, "testdata/over-budget/input.yaml") {
				if _, ok := obj.(*gwv1.HTTPRoute); !ok {
					h.Set(obj)
				}
			}
			h.Set(largeRoute(author, "few", 1))
			h.Set(largeRoute(author, "many", 64))
			h.Synced()
			h.Process()
			for name, want := range map[string]string{"few": string(gwv1.RouteReasonAccepted), "many": string(ingest.ReasonOverBudget)} {
				r := h.reports[model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: author, Name: name}]
				require.Equal(t, want, r.Parents[0].Conditions[0].Reason, name)
			}
		})
	}
}

// largeRoute has a rule with so many matches that sets 256 KiB of headers.
func largeRoute(namespace, name string, matches int) *gwv1.HTTPRoute {
	owner, port := gwv1.Namespace("owner"), gwv1.PortNumber(80)
	web := gwv1.BackendObjectReference{Name: "web", Namespace: &owner, Port: &port}
	rule := gwv1.HTTPRouteRule{}
	for m := range matches {
		path := fmt.Sprintf("/%s/%d", name, m)
		rule.Matches = append(rule.Matches, gwv1.HTTPRouteMatch{Path: &gwv1.HTTPPathMatch{Value: &path}})
	}
	for b := range 4 {
		change := &gwv1.HTTPHeaderFilter{}
		for n := range 16 {
			header := gwv1.HTTPHeader{Name: gwv1.HTTPHeaderName(fmt.Sprintf("x-%d-%d", b, n)), Value: strings.Repeat("x", 4<<10)}
			change.Set = append(change.Set, header)
		}
		rule.BackendRefs = append(rule.BackendRefs, gwv1.HTTPBackendRef{
			BackendRef: gwv1.BackendRef{BackendObjectReference: web},
			Filters:    []gwv1.HTTPRouteFilter{{Type: gwv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: change}},
		})
	}
	r := &gwv1.HTTPRoute{}
	r.Namespace, r.Name, r.Generation = namespace, name, 1
	group, kind := gwv1.Group(""), gwv1.Kind("Service")
	r.Spec.ParentRefs = []gwv1.ParentReference{{Group: &group, Kind: &kind, Name: "web", Namespace: &owner}}
	r.Spec.Rules = []gwv1.HTTPRouteRule{rule}
	return r
}
