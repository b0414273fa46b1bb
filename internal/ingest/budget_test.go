// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
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
	require.Equal(t, cost{rules: 18, expressions: 21, bytes: 156}, costOf(&Route{Rules: rules, Parents: parents}, "owner"))
}
