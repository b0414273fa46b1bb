// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package catalogue

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

var gateway = types.NamespacedName{Namespace: "a", Name: "b"}

func TestScopesAndOwners(t *testing.T) {
	got, ok := WaypointOf(WaypointScope(gateway))
	require.True(t, ok)
	require.Equal(t, gateway, got)
	node, ok := NodeOf(NodeScope("n"))
	require.True(t, ok)
	require.Equal(t, "n", node)
	for _, s := range []xds.Scope{
		"", "/", "node", "node/", AllNodes, "waypoint/a", "waypoint/a/", "waypoint//b",
		"waypoint/a/b/c", "gateway/a/b", "local",
	} {
		_, ok := ownerOf(s)
		require.False(t, ok, "%q", s)
	}
	_, ok = NodeOf(WaypointScope(gateway))
	require.False(t, ok)
	_, ok = WaypointOf(NodeScope("n"))
	require.False(t, ok)
}

// FuzzOwnerOf: scopes come over the wire from other replicas; none is taken apart that would not be put together the
// same way.
func FuzzOwnerOf(f *testing.F) {
	for _, s := range []string{"waypoint/a/b", "node/n", "node/*", "///"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, ok := ownerOf(xds.Scope(s))
		switch {
		case ok && o.kind == Node:
			require.EqualValues(t, s, NodeScope(o.name.Name))
		case ok:
			require.EqualValues(t, s, WaypointScope(o.name))
		}
	})
}

func TestWhatStatusesNeed(t *testing.T) {
	scope := WaypointScope(gateway)
	for k, want := range map[xds.Key]Part{
		Serving(gateway): Everyone,
		scope.Key(xds.TypeRoute, "service/a/b/80"):        Everyone,
		scope.Key(xds.TypeScopedRoute, "service/a/b/80"):  Rejecting,
		scope.Key(xds.TypeCluster, "service/a/b/80"):      Everyone,
		scope.Key(xds.TypeListener, names.ListenerTrial):  Rejecting,
		scope.Key(xds.TypeExtension, "policy"):            Everyone,
		NodeScope("n").Key(xds.TypeExtension, "policy"):   Everyone,
		NodeScope("n").Key(xds.TypeExtension, "*"):        Nobody,
		AllNodes.Key(xds.TypeExtension, "policy"):         Nobody,
		scope.Key(xds.TypeRoute, names.RouteTrial):        Nobody,
		scope.Key(xds.TypeListener, xds.Wildcard):         Nobody,
		scope.Key(xds.TypeEndpoint, "waypoint/a/b/80"):    Nobody,
		NodeScope("n").Key(xds.TypeCluster, "10.0.0.1:8"): Nobody,
		AllNodes.Key(xds.TypeCluster, "10.0.0.1:8"):       Switched,
		AllNodes.Key(xds.TypeEndpoint, "node/a/b/80"):     Nobody,
	} {
		require.Equal(t, want, PartOf(k), k)
	}
	require.Equal(t, AllNodes.Key(xds.TypeCluster, "x"), Together(NodeScope("n").Key(xds.TypeCluster, "x")))
	require.Equal(t, AllNodes.Key(xds.TypeCluster, "x"), Together(AllNodes.Key(xds.TypeCluster, "x")),
		"as other replicas tell")
	require.Equal(t, scope.Key(xds.TypeCluster, "x"), Together(scope.Key(xds.TypeCluster, "x")))
}

func TestReady(t *testing.T) {
	state := xds.ResourceState{Version: "2", Proxies: []xds.ProxyAck{
		{Proxy: xds.Proxy{PodUID: "starts"}, State: xds.Pending},
		{Proxy: xds.Proxy{PodUID: "behind"}, State: xds.Pending, Version: "1"},
		{Proxy: xds.Proxy{PodUID: "rejects"}, State: xds.Rejected, Version: "1"},
		{Proxy: xds.Proxy{PodUID: "serves"}, State: xds.Acked, Version: "2"},
	}}
	require.Equal(t, map[string]bool{"behind": true, "rejects": true, "serves": true}, Ready(state))
}
