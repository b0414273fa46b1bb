// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestCallersKeepTheirWaypointWhileAllOthersJoin: the owner's first route sends everyone through the waypoint. Until a
// node proxy has switched to that, callers of consumers' routes go on through it.
func TestCallersKeepTheirWaypointWhileAllOthersJoin(t *testing.T) {
	const scope, vip = xds.Scope("node/node1"), "10.96.3.10:80"
	h := newHarness(t)
	var route client.Object
	for _, obj := range caseOf(t, "consumers-alone") {
		h.Set(obj)
		if obj.GetName() == "web" && obj.GetNamespace() == "consumer-a" {
			route = obj
		}
	}
	h.Synced()
	h.process()
	h.subscribe(scope, vip)
	cluster, _ := h.cache.Get(scope.Key(xds.TypeCluster, vip))
	name := edsName(cluster)
	waypoints := func() (n int) {
		r, _ := h.cache.Get(scope.Key(xds.TypeEndpoint, name))
		var a endpointv3.ClusterLoadAssignment
		require.NoError(t, r.Any().UnmarshalTo(&a))
		for _, group := range a.Endpoints {
			for _, e := range group.LbEndpoints {
				if e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue() == 15008 {
					n++
				}
			}
		}
		return n
	}
	require.Equal(t, 1, waypoints())

	own := route.DeepCopyObject().(client.Object)
	own.SetNamespace("owner")
	h.Set(own)
	h.process()
	now, _ := h.cache.Get(scope.Key(xds.TypeCluster, vip))
	require.NotEqual(t, name, edsName(now), "all go there")
	require.Equal(t, 1, waypoints())
}
