// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestWhatIsReserved: on no way of a table does a rate limit service set what the authorization service of a rule alone
// is to set, or what rules of policies go by. What policies vouch for is in the golden case "authentication".
func TestWhatIsReserved(t *testing.T) {
	asks := func(taken ...string) []*model.Rule {
		return []*model.Rule{{Filters: []model.Filter{{ExternalAuth: &model.ExternalAuth{Taken: taken}}}}}
	}
	guarded := func(r model.AccessRequest) []model.Guard {
		return []model.Guard{{Application: []model.AccessPolicy{{Rules: []model.AccessRule{{}, {Request: &r}}}}}}
	}
	table := model.RouteTable{
		Guards:  guarded(model.AccessRequest{Headers: []model.AccessHeader{{Name: "X_Tenant"}}}),
		Default: asks("X_User-Name", "x-mail"), Callers: []model.CallerRules{{Rules: asks("x-user-name", "X-Of-Callers")}},
	}
	of := func(t *model.RouteTable) []string {
		return newWorld().in.reserving(nil, t, &model.GlobalLimit{Domain: "d"}).Reserved
	}
	require.Equal(t, []string{"x-mail", "x-of-callers", "x-tenant", "x-user-name"}, of(&table))
	by := func(expression string) *model.RouteTable {
		g := guarded(model.AccessRequest{CEL: expression})
		return &model.RouteTable{Default: []*model.Rule{{Backends: []model.Backend{{Guards: g}}}}}
	}
	for _, expression := range []string{
		`request.headers["x_role"] == "a b"`, `"X-Role" in request.headers`, `has(request.headers.x_role)`,
		`["x-role"].all(h, request.headers[h] != "")`,
	} {
		require.Subset(t, of(by(expression)), []string{"referer", "user-agent", "x-request-id", "x-role"}, expression)
		require.NotContains(t, of(by(expression)), "a b")
	}

	in, limit := newWorld().in, &model.GlobalLimit{Domain: "d"}
	require.Same(t, limit, in.reserving(nil, &model.RouteTable{}, limit))
	require.NotSame(t, limit, in.reserving(nil, &table, limit))
	require.Nil(t, limit.Reserved, "others have it, too")
	require.Nil(t, in.reserving(nil, &table, nil))
}
