// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestForgedSpellings: a header that a policy vouches for is the same in every spelling that servers take for it, on
// both sides: as the policy has it and as a rule sets it.
func TestForgedSpellings(t *testing.T) {
	for _, policy := range []model.Authentication{
		{Asked: &model.ExternalAuth{Taken: []string{"X_User-Name"}}},
		{Tokens: &model.Tokens{Providers: []model.TokenProvider{{Claims: []model.ClaimHeader{{Header: "x_user-name"}}}}}},
		{Tokens: &model.Tokens{Providers: []model.TokenProvider{{Headers: []model.TokenHeader{{Name: "x_user-name"}}}}}},
	} {
		for name, same := range map[string]bool{
			"x_user-name": true, "X-User-Name": true, "x_user_name": true, "X-User": false,
		} {
			rule := model.Rule{Filters: []model.Filter{{RequestHeaders: &model.HeaderChange{
				Set: []model.Header{{Name: name, Value: "eve"}},
			}}}}
			changes := changesOf(rule, model.Backend{})
			require.Len(t, changes, 1)
			require.Equal(t, same, changes[0].of(policy) != "", "%s of %+v", name, policy)
		}
	}
}
