// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestTooManyPoliciesTogether are satisfied by nothing: proxies are asked for one that they can't know.
func TestTooManyPoliciesTogether(t *testing.T) {
	var g model.Guard
	for n := range model.MostTogether {
		g.Authentication = append(g.Authentication, model.PolicyName{Namespace: "shop", Name: fmt.Sprintf("p%02d", n)})
	}
	require.Equal(t, g.Authentication, model.Needed([]model.Guard{g, g}))
	another := model.Guard{Authentication: []model.PolicyName{{Namespace: "shop", Name: "another"}}}
	needed := model.Needed([]model.Guard{g, another})
	require.Equal(t, "shop/too many policies", model.AuthenticationSet(needed))
}
