// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestNearest: what is near to a proxy comes first, what drains last, and nothing is lost or changed otherwise.
func TestNearest(t *testing.T) {
	id := names.SPIFFEID(trustDomain, "shop", "web")
	e := func(n byte, node, zone string, draining bool) model.Endpoint {
		out := model.Endpoint{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 0, n}), 8080), MTLS: n != 3, Zone: "z" + zone,
			Identity: id, Draining: draining,
		}
		if node != "" {
			out.ForNodes = []string{node, "other"}
		}
		if zone != "" {
			out.ForZones = []string{zone, "other"}
		}
		return out
	}
	list := []model.Endpoint{
		e(1, "n1", "a", false), e(2, "n2", "a", false), e(3, "n3", "b", false), e(4, "n1", "a", true),
		e(5, "n3", "b", true),
	}
	full := envoy.Any(WaypointEndpoints(web, list))
	for name, c := range map[string]struct {
		at   Place
		want map[string]uint32
	}{
		"node and zone": {Place{"n1", "a"}, map[string]uint32{
			"10.244.0.1": 0, "10.244.0.2": 1, "10.244.0.3": 2, "10.244.0.4": 3, "10.244.0.5": 4,
		}},
		"zone alone": {Place{"n9", "b"}, map[string]uint32{
			"10.244.0.3": 0, "10.244.0.1": 1, "10.244.0.2": 1, "10.244.0.5": 2, "10.244.0.4": 3,
		}},
		"nothing near": {Place{"n9", "c"}, map[string]uint32{
			"10.244.0.1": 0, "10.244.0.2": 0, "10.244.0.3": 0, "10.244.0.4": 1, "10.244.0.5": 1,
		}},
		"nothing known": {Place{}, map[string]uint32{
			"10.244.0.1": 0, "10.244.0.2": 0, "10.244.0.3": 0, "10.244.0.4": 1, "10.244.0.5": 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			near, err := Nearest(full, c.at)
			require.NoError(t, err)
			require.Equal(t, c.want, places(t, near))
			a := &endpointv3.ClusterLoadAssignment{}
			require.NoError(t, near.UnmarshalTo(a))
			invariants(t, a)
			// But for the order it is what a waypoint would get if nobody had said whom endpoints are near to.
			plain := make([]model.Endpoint, len(list))
			for n, e := range list {
				e.ForNodes, e.ForZones = nil, nil
				plain[n] = e
			}
			without := map[string]*endpointv3.LbEndpoint{}
			for _, l := range WaypointEndpoints(web, plain).GetEndpoints() {
				for _, e := range l.GetLbEndpoints() {
					without[l.GetLocality().String()+e.GetEndpoint().GetAddress().String()] = e
				}
			}
			for _, l := range a.GetEndpoints() {
				for _, e := range l.GetLbEndpoints() {
					at := l.GetLocality().String() + e.GetEndpoint().GetAddress().String()
					require.Equal(t, without[at].String(), e.String())
				}
			}
			again, err := Nearest(near, Place{"n2", "b"})
			require.NoError(t, err)
			require.Same(t, near, again, "what is in order stays so")
		})
	}
	plain := envoy.Any(WaypointEndpoints(web, many(3)))
	same, err := Nearest(plain, Place{"n1", "a"})
	require.NoError(t, err)
	require.Same(t, plain, same)
}
