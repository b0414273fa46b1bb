// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestCostOfARoute: every expression and byte of an author counts, wherever it is, for each port that it is for.
func TestCostOfARoute(t *testing.T) {
	re, exact := model.StringMatch{Type: model.MatchRegex, Value: "a+"}, model.StringMatch{Type: model.MatchExact, Value: "a"}
	rules := []model.Rule{
		{Match: path(model.MatchRegex, "/a+")},
		{Match: path(model.MatchPrefix, "/a")},
		{GRPC: true, Match: model.Match{GRPCType: model.MatchRegex, GRPCService: "a+", GRPCMethod: "b+"}},
		{Match: model.Match{Headers: []model.NamedMatch{{Name: "a", StringMatch: re}, {Name: "b", StringMatch: exact}, {Name: "c", StringMatch: re}}}},
		{Match: model.Match{Query: []model.NamedMatch{{Name: "a", StringMatch: re}}}},
		{Filters: []model.Filter{{CORS: &model.CORS{AllowOrigins: []string{"*", "https://a", "https://*.a", "https://*.b"}}}}},
	}
	parents := []Parent{
		{Service: cluster.Key{Namespace: "owner", Name: "a"}, Ports: make([]model.ServicePort, 2)},
		{Service: cluster.Key{Namespace: "owner", Name: "b"}, Ports: make([]model.ServicePort, 1)},
		{Service: cluster.Key{Namespace: "owner", Name: "refused"}},
		{Service: cluster.Key{Namespace: "another", Name: "a"}, Ports: make([]model.ServicePort, 5)},
	}
	require.Equal(t, map[string]cost{
		"owner": {rules: 18, expressions: 21, bytes: 18*512 + 156}, "another": {rules: 30, expressions: 35, bytes: 30*512 + 260},
	}, costsOf(&Route{Rules: rules, Parents: parents}))
}

// TestEqualPart: all together have no more than there is, nothing of it is left over while somebody wants it, and nobody gets
// less for what another one asks for beyond an equal part.
func TestEqualPart(t *testing.T) {
	require.Equal(t, math.MaxInt, equalPart(nil, 10))
	require.Equal(t, math.MaxInt, equalPart([]int{3, 7}, 10))
	require.Equal(t, 7, equalPart([]int{8, 3}, 10))
	require.Equal(t, 5, equalPart([]int{6, 7}, 10))
	require.Equal(t, 5, equalPart([]int{6, 1000}, 10))
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		asked := make([]int, 1+r.IntN(20))
		all := 0
		for n := range asked {
			asked[n] = r.IntN(50)
			all += asked[n]
		}
		const most = 200
		part := equalPart(slices.Clone(asked), most)
		had := 0
		for _, a := range asked {
			had += min(a, part)
		}
		require.LessOrEqual(t, had, most)
		require.Greater(t, had+len(asked), min(all, most), "but for what can't be divided")
	}
}
