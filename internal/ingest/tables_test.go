// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

func path(t model.MatchType, v string) model.Match {
	return model.Match{Path: &model.StringMatch{Type: t, Value: v}}
}

func with(m model.Match, change func(*model.Match)) model.Match { change(&m); return m }

// rulesInOrder are those of routes that come in order of precedence.
func rulesInOrder(routes ...*Route) []*model.Rule {
	var all []placedRule
	for _, r := range routes {
		for n := range r.Rules {
			all = append(all, placedRule{&r.Rules[n], rank(r.Rules[n].Match)})
		}
	}
	return ordered(all)
}

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
	for _, r := range rulesInOrder(older, newer) {
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
	require.NotNil(t, ordered(nil), "routes without rules match nothing")
}

func TestOrderedRulesPutTheLongerServiceFirst(t *testing.T) {
	rules := rulesInOrder(&Route{ref: model.ObjectRef{Kind: kindGRPCRoute}, Rules: []model.Rule{
		{GRPC: true, Match: model.Match{GRPCService: "a"}},
		{GRPC: true, Match: model.Match{GRPCService: "a.long", GRPCMethod: "b"}},
	}})
	require.Equal(t, "a.long", rules[0].Match.GRPCService)
}

// TestRankFollowsThePrecedenceOfTheAPI holds it, for random matches within the limits of the API, against what the API
// says one after the other.
func TestRankFollowsThePrecedenceOfTheAPI(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 6))
	few := func(most int) int { return []int{0, 1, r.IntN(most + 1), most - 1, most}[r.IntN(5)] }
	match := func() (m model.Match) {
		if r.IntN(4) > 0 {
			kind := []model.MatchType{model.MatchExact, model.MatchPrefix, model.MatchRegex}[r.IntN(3)]
			m.Path = &model.StringMatch{Type: kind, Value: strings.Repeat("a", few(1024))}
		}
		m.GRPCService, m.GRPCMethod = strings.Repeat("s", few(1024)), strings.Repeat("m", few(1024))
		m.Method = []string{"", "GET", "DELETE"}[r.IntN(3)]
		m.Headers, m.Query = make([]model.NamedMatch, few(16)), make([]model.NamedMatch, few(16))
		return m
	}
	order := []func(model.Match) int{
		func(m model.Match) int { return pathRank(m.Path) },
		func(m model.Match) int {
			if m.Path == nil {
				return 0
			}
			return len(m.Path.Value)
		},
		func(m model.Match) int { return len(m.GRPCService) },
		func(m model.Match) int { return len(m.GRPCMethod) },
		func(m model.Match) int { return min(len(m.Method), 1) },
		func(m model.Match) int { return len(m.Headers) },
		func(m model.Match) int { return len(m.Query) },
	}
	for range 100_000 {
		a := match()
		b := a
		if r.IntN(2) == 0 {
			b = match()
		}
		want := 0
		for _, of := range order {
			want = cmp.Or(want, cmp.Compare(of(a), of(b)))
		}
		require.Equal(t, want, cmp.Compare(rank(a), rank(b)), "%+v, %+v", a, b)
	}
}
