// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestAuthenticationOfOthers: whoever has a route for a Service has its own policies at the Service's waypoint, within
// bounds, and takes nothing from the owner's or from others.
func TestAuthenticationOfOthers(t *testing.T) {
	optional := model.TokenProvider{Params: []string{"a", "b", "c"}}
	policies := map[cluster.Key]*model.Authentication{}
	var sets [][]cluster.Key
	add := func(namespace string, n int, of model.TokenProvider) {
		key := cluster.Key{Namespace: namespace, Name: fmt.Sprintf("p%03d", n)}
		policies[key] = &model.Authentication{Tokens: &model.Tokens{
			Optional: of.Params != nil, Providers: []model.TokenProvider{of, of, of, of, of, of, of, of},
		}}
		sets = append(sets, []cluster.Key{key})
	}
	large := model.TokenProvider{Keys: strings.Repeat("k", 16<<10)}
	for n := range 100 {
		add("owner", n, large)
		add("large", n, large)
		add("many", n, optional)
	}
	for n := range 5000 {
		add("many", 100+n, optional)
	}
	add("small", 0, large)
	kept := map[string]int{}
	for _, set := range affordable("owner", sets, func(k cluster.Key) *model.Authentication { return policies[k] }) {
		kept[set[0].Namespace]++
	}
	require.Equal(t, 100, kept["owner"])
	require.Equal(t, 1, kept["small"])
	require.Equal(t, mostAuthenticationOfOthers/(8*(16<<10)+9*512), kept["large"])
	require.Equal(t, mostAuthenticationOfOthers/(8*512+25*512), kept["many"])
}
