// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

func path(t model.MatchType, v string) model.Match {
	return model.Match{Path: &model.StringMatch{Type: t, Value: v}}
}

func with(m model.Match, change func(*model.Match)) model.Match { change(&m); return m }

// TestOrderedRulesFollowThePrecedenceOfTheAPI gives matches in the wrong order, spread over two routes of different
// age.
func TestOrderedRulesFollowThePrecedenceOfTheAPI(t *testing.T) {
	header := []model.NamedMatch{{Name: "a"}}
	want := []model.Match{
		path(model.MatchExact, "/long/path"),
		path(model.MatchExact, "/a"),
		path(model.MatchRegex, "/a.*"),
		path(model.MatchPrefix, "/long"),
		with(path(model.MatchPrefix, "/"), func(m *model.Match) { m.Method = "GET" }),
		with(path(model.MatchPrefix, "/"), func(m *model.Match) { m.Headers = append(header, model.NamedMatch{Name: "b"}) }),
		with(path(model.MatchPrefix, "/"), func(m *model.Match) { m.Headers = header }),
		with(path(model.MatchPrefix, "/"), func(m *model.Match) { m.Query = header }),
		path(model.MatchPrefix, "/"),
	}
	older := &Route{ref: model.ObjectRef{Kind: KindHTTPRoute, Name: "older"}, created: time.Unix(1, 0)}
	newer := &Route{ref: model.ObjectRef{Kind: KindHTTPRoute, Name: "newer"}, created: time.Unix(2, 0)}
	for n := len(want) - 1; n >= 0; n-- {
		r := []*Route{newer, older}[n%2]
		r.Rules = append(r.Rules, model.Rule{Source: r.ref, Match: want[n]})
	}
	// The same match in both: the older route has it.
	newer.Rules = append(newer.Rules, model.Rule{Source: newer.ref, Match: path(model.MatchExact, "/both")})
	older.Rules = append(older.Rules, model.Rule{Source: older.ref, Match: path(model.MatchExact, "/both")})

	var got []model.Match
	var both []string
	for _, r := range orderedRules([]*Route{older, newer}) {
		if r.Match.Path.Value == "/both" {
			both = append(both, r.Source.Name)
			continue
		}
		got = append(got, r.Match)
	}
	require.Equal(t, want, got)
	require.Equal(t, []string{"older", "newer"}, both)
}

func TestRoutesWithoutRulesAreNotNoRoute(t *testing.T) {
	require.NotNil(t, orderedRules(nil), "routes without rules match nothing")
}

func TestOrderedRulesPutTheLongerServiceFirst(t *testing.T) {
	rules := orderedRules([]*Route{{ref: model.ObjectRef{Kind: kindGRPCRoute}, Rules: []model.Rule{
		{GRPC: true, Match: model.Match{GRPCService: "a"}},
		{GRPC: true, Match: model.Match{GRPCService: "a.long", GRPCMethod: "b"}},
	}}})
	require.Equal(t, "a.long", rules[0].Match.GRPCService)
}
