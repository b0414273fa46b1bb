// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestTheLastChangeOfTheHostStands: URLRewrite.hostname and header filters that set Host, in every order and on every
// level.
func TestTheLastChangeOfTheHostStands(t *testing.T) {
	s := newShop(t)
	host := func(name string) model.Filter {
		return model.Filter{RequestHeaders: &model.HeaderChange{Set: []model.Header{{Name: "Host", Value: name}}}}
	}
	rewritten := model.Filter{Rewrite: &model.Rewrite{Hostname: "rewritten.example"}}
	cases := map[string]struct {
		rule model.Rule
		want string
	}{
		"/rewrite-set": {rule(model.Match{}, filters(rewritten, host("set.example")), to(webV1, 1)), "set.example"},
		"/set-rewrite": {rule(model.Match{}, filters(host("set.example"), rewritten), to(webV1, 1)), "rewritten.example"},
		"/backend":     {rule(model.Match{}, filters(rewritten), to(webV1, 1, host("backend.example"))), "backend.example"},
		"/backends": {rule(model.Match{}, filters(rewritten), to(webV1, 1, host("backend.example")),
			to(webV2, 1, host("backend.example"))), "backend.example"},
		"/other-backend": {rule(model.Match{}, filters(host("set.example")), to(webV1, 1), to(webV2, 1)), "set.example"},
	}
	table := model.RouteTable{Default: []*model.Rule{}}
	for path, c := range cases {
		c.rule.Match = below(path)
		table.Default = append(table.Default, &c.rule)
	}
	dialled := s.serve(web, true, &table)
	client := s.caller(clientID).client(t, dialled, nil)
	for path, c := range cases {
		if got := do(t, client, "GET", "http://web"+path).Host; got != c.want {
			t.Errorf("%s: host %q, want %q", path, got, c.want)
		}
	}
}
