// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/catalogue"
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

// TestClustersOfAllNodes: a replica that has no node that dials an address knows all the same what such a node should have,
// to judge what other replicas say of theirs.
func TestClustersOfAllNodes(t *testing.T) {
	h := newHarness(t)
	for _, obj := range readManifests(t, "testdata/split/input.yaml") {
		h.Set(obj)
	}
	h.Synced()
	const address = "10.96.0.10:80"
	for _, scope := range []xds.Scope{catalogue.AllNodes, "node/node1"} {
		h.Interest(xds.Interest{Key: scope.Key(xds.TypeCluster, address), Wanted: true})
	}
	h.Process()
	all, known := h.cache.Get(catalogue.AllNodes.Key(xds.TypeCluster, address))
	require.True(t, known)
	require.NotNil(t, all)
	one, _ := h.cache.Get(xds.Scope("node/node1").Key(xds.TypeCluster, address))
	require.True(t, all.Equal(one))
}
