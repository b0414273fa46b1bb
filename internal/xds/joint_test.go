// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// leading is a cluster with endpoints by EDS, whose content follows v.
func leading(t testing.TB, name string, v int) *Resource {
	return must(t, name, &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Duration(v) * time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
	})
}

func TestTheStateOfAllScopesOfAKind(t *testing.T) {
	f := newFixture(t, refuseProbe)
	all := AllOf("node")
	apply := func(scope Scope, r *Resource) {
		f.cache.Apply(scope, []Update{Set(r)})
	}
	says := func(states ...AckState) func() bool {
		return func() bool {
			got := f.server.State(all.Key(TypeCluster, "vip")).Proxies
			if len(got) != len(states) {
				return false
			}
			for i, s := range states {
				if got[i].State != s {
					return false
				}
			}
			return true
		}
	}
	require.Empty(t, f.server.State(all.Key(TypeCluster, "vip")))
	apply("node/one", leading(t, "vip", 1))
	apply("node/two", leading(t, "vip", 1))
	apply(testScope, leading(t, "vip", 3))

	one, two, other, waypoint := f.connect("node/one", "1"), f.connect("node/two", "2"), f.connect("node/three", "3"),
		f.connect(testScope, "4")
	one.subscribe(TypeCluster, "vip")
	two.subscribe(TypeCluster, "vip")
	other.subscribe(TypeCluster, "another")
	waypoint.subscribe(TypeCluster, "vip")
	waypoint.expect(TypeCluster, "vip")
	first := one.recv()
	two.expect(TypeCluster, "vip")
	eventually.True(f.t, "who has no version yet does not count", says(Acked))
	one.ack(first)
	eventually.True(f.t, "both have it", says(Acked, Acked))

	apply("node/one", leading(t, "vip", 2))
	require.True(t, says(Pending, Pending)(), "which content is current can't be told")
	apply("node/two", leading(t, "vip", 2))
	require.True(t, says(Pending, Pending)(), "both run an older one")
	one.expect(TypeCluster, "vip")
	eventually.True(f.t, "one has switched; who is behind comes first", says(Pending, Acked))
	require.Equal(t, leading(t, "vip", 2).Version(), f.server.State(all.Key(TypeCluster, "vip")).Version)
	two.nack(two.recv(), "no")
	eventually.True(f.t, "a rejection is told", says(Rejected, Acked))
	require.Equal(t, "no", f.server.State(all.Key(TypeCluster, "vip")).Rejection())
	two.cancel()
	eventually.True(f.t, "who is gone is waited for by nobody", says(Acked))

	// What others have of it may be newer.
	apply(all, leading(t, "vip", 3))
	require.True(t, says(Pending)())
	apply("node/one", leading(t, "vip", 3))
	one.expect(TypeCluster, "vip")
	eventually.True(f.t, "and acknowledged", says(Acked))

	apply("node/one", cluster(t, "vip", 4))
	require.Empty(t, f.server.State(all.Key(TypeCluster, "vip")), "an address that leads to no Service")
	one.expect(TypeCluster, "vip")
	one.unsubscribe(TypeCluster, "vip")
	one.quiet()
	require.Empty(t, f.cache.clusters.list("vip", "node/"))
}
