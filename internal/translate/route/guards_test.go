// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

func denying(name string, rules ...model.AccessRule) model.AccessPolicy {
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: name}, Deny: true, Rules: rules}
}

// TestReasonsToRefuse: where rules deny identities, who has none is refused; and who denies everybody is there once.
func TestReasonsToRefuse(t *testing.T) {
	eve := []model.AccessSource{{Identity: "spiffe://cluster.local/ns/shop/sa/eve"}}
	post := &model.AccessRequest{Methods: []string{"POST"}}
	for _, tc := range []struct {
		policies []model.AccessPolicy
		reasons  []string
	}{
		{[]model.AccessPolicy{denying("a", model.AccessRule{Request: post})}, []string{"DENY shop/a rule 0"}},
		{
			[]model.AccessPolicy{denying("a", model.AccessRule{Sources: eve}), denying("b", model.AccessRule{Sources: eve})},
			[]string{"DENY shop/a rule 0", "DENY shop/b rule 0", envoy.Unproved},
		},
		{
			[]model.AccessPolicy{
				denying("a", model.AccessRule{}), denying("b", model.AccessRule{}), denying("c", model.AccessRule{Request: post}),
			},
			[]string{"DENY shop/a rule 0", "DENY shop/c rule 0"},
		},
	} {
		got := refusals([]model.Guard{{Application: tc.policies}}, false)
		require.Equal(t, tc.reasons, slices.Sorted(maps.Keys(got)))
		if p := got[envoy.Unproved]; p != nil {
			proved := p.GetPrincipals()[0].GetNotId().GetFilterState()
			require.Equal(t, "spiffe://", proved.GetStringMatch().GetPrefix())
		}
	}
}
