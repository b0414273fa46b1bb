// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"net/netip"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const webEndpoints = "node/shop/web/80"

// many endpoints, all alike.
func many(n int) []model.Endpoint {
	out := make([]model.Endpoint, n)
	for i := range out {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
		out[i] = model.Endpoint{Address: netip.AddrPortFrom(addr, 8080), MTLS: true, Zone: fmt.Sprint("zone-", i%2)}
	}
	return out
}

func fewer(t *testing.T, packed *anypb.Any, most int, nodeName string) *anypb.Any {
	t.Helper()
	out, err := FewerEndpoints(packed, most, nodeName)
	require.NoError(t, err)
	return out
}

// places are the addresses of a load assignment, each with its priority.
func places(t *testing.T, packed *anypb.Any) map[string]uint32 {
	t.Helper()
	a := &endpointv3.ClusterLoadAssignment{}
	require.NoError(t, packed.UnmarshalTo(a))
	out := map[string]uint32{}
	for _, l := range a.GetEndpoints() {
		require.NotEmpty(t, l.GetLbEndpoints())
		for _, e := range l.GetLbEndpoints() {
			out[e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()] = l.GetPriority()
		}
	}
	n, _, err := CountEndpoints(packed)
	require.NoError(t, err)
	require.Len(t, out, n)
	return out
}

func TestFewerEndpoints(t *testing.T) {
	all := many(1000)
	full := envoy.Any(NodeEndpoints(webEndpoints, all))
	require.Equal(t, places(t, full), places(t, fewer(t, full, 1000, "n1")))
	some := places(t, fewer(t, full, 100, "n1"))
	require.Len(t, some, 100)
	few := fewer(t, full, 10, "n1")
	require.Equal(t, few.GetValue(), fewer(t, fewer(t, full, 100, "n1"), 10, "n1").GetValue(), "fewer of fewer")
	require.Subset(t, some, places(t, few))

	// One that goes is replaced by one, and one that comes takes one's place at most.
	for i, e := range all {
		if _, picked := some[e.Address.Addr().String()]; !picked {
			continue
		}
		rest := append(all[:i:i], all[i+1:]...)
		moved := places(t, fewer(t, envoy.Any(NodeEndpoints(webEndpoints, rest)), 100, "n1"))
		stayed := 0
		for at := range moved {
			if _, before := some[at]; before {
				stayed++
			}
		}
		require.Equal(t, 99, stayed)
		break
	}

	// Nodes together reach all, about alike.
	reached := map[string]int{}
	for n := range 200 {
		for at := range places(t, fewer(t, full, 100, fmt.Sprint("node-", n))) {
			reached[at]++
		}
	}
	require.Len(t, reached, 1000)
	for at, n := range reached {
		require.InDelta(t, 20, n, 19, at)
	}
}

func TestFewerEndpointsAreTheNearest(t *testing.T) {
	list := many(40)
	for i := range list {
		switch {
		case i < 5:
			list[i].Distance = 0
		case i < 10:
			list[i].Draining = true
		default:
			list[i].Distance = 2
		}
	}
	full := envoy.Any(NodeEndpoints(webEndpoints, list))
	count := func(most int) map[uint32]int {
		out := map[uint32]int{}
		for _, priority := range places(t, fewer(t, full, most, "n1")) {
			out[priority]++
		}
		return out
	}
	require.Equal(t, map[uint32]int{0: 3}, count(3))
	require.Equal(t, map[uint32]int{0: 5, 1: 15}, count(20))
	require.Equal(t, map[uint32]int{0: 5, 1: 30, 2: 3}, count(38))
}

func TestFewerEndpointsOfEachKindOfCaller(t *testing.T) {
	name := names.CallerEndpoints("shop", "web", 80, false, []string{"other"})
	of := func(forAll, forSome, most int) (int, int) {
		list := many(forAll)
		for i := range forSome {
			list = append(list, model.Endpoint{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)}), 15008), MTLS: true,
				Callers: []string{"other"}, Draining: i == 0,
			})
		}
		all, some := 0, 0
		for at := range places(t, fewer(t, envoy.Any(NodeEndpoints(name, list)), most, "n1")) {
			if netip.MustParseAddr(at).As4()[1] == 245 {
				some++
			} else {
				all++
			}
		}
		return all, some
	}
	for _, c := range []struct{ forAll, forSome, most, all, some int }{
		{100, 3, 10, 7, 3},
		{100, 100, 10, 5, 5},
		{2, 100, 10, 2, 8},
		{0, 100, 10, 0, 10},
		{100, 1, 2, 1, 1},
	} {
		all, some := of(c.forAll, c.forSome, c.most)
		require.Equal(t, []int{c.all, c.some}, []int{all, some}, "%v", c)
	}

	// Without a waypoint, its callers are refused.
	absent := append(many(100), model.Endpoint{Callers: []string{"other"}, Absent: true})
	a := &endpointv3.ClusterLoadAssignment{}
	require.NoError(t, fewer(t, envoy.Any(NodeEndpoints(name, absent)), 8, "n1").UnmarshalTo(a))
	var kept []string
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			if isForSome(e) {
				kept = append(kept, e.GetHealthStatus().String())
			}
		}
	}
	require.Equal(t, []string{"UNHEALTHY"}, kept)
	require.Equal(t, 3, EndpointCost(name))
	require.Equal(t, 1, EndpointCost(webEndpoints))
}
