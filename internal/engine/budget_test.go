// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
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
