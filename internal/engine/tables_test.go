// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestTablesComeWithWhatLeadsToThem, before any proxy asks for them: the listener then waits for those of new ports.
func TestTablesComeWithWhatLeadsToThem(t *testing.T) {
	const scope xds.Scope = "waypoint/bookshop/fairway-waypoint"
	h := newHarness(t)
	for _, obj := range readManifests(t, "testdata/split/input.yaml") {
		h.Set(obj)
	}
	h.Synced()
	tables := func() (out []string) {
		h.Process()
		for _, r := range h.cache.List(scope, xds.TypeRoute) {
			out = append(out, r.Name())
		}
		return out
	}
	all := xds.Interest{Key: scope.Key(xds.TypeScopedRoute, xds.Wildcard), Wanted: true}
	h.Interest(all)
	require.NotEmpty(t, tables())
	require.Len(t, tables(), len(h.cache.List(scope, xds.TypeScopedRoute)))

	one := xds.Interest{Key: scope.Key(xds.TypeRoute, tables()[0]), Wanted: true}
	h.Interest(one)
	one.Wanted = false
	h.Interest(one)
	require.Len(t, tables(), len(h.cache.List(scope, xds.TypeScopedRoute)), "they stay as long as something leads to them")
}
