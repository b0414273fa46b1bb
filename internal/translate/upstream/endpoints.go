// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// candidate is an endpoint as a kind of proxy sees it.
type candidate struct {
	model.Endpoint
	// at is where the proxy connects to, and what Envoy tells endpoints of a cluster by. All ports of a pod in the mesh
	// share it: of two ports of one pod behind one port of a Service (slices made by hand can have that), the first
	// serves.
	at netip.AddrPort
	// rank is the order in which endpoints are taken: others only when none of a lower rank is left.
	rank int
	// subZone tells apart what is one endpoint to Envoy only as long as this stays.
	subZone string
}

// assign groups endpoints by rank, which becomes the priority, and zone; zones change no balance by themselves. The
// order of the candidates does not matter.
func assign(
	name string, candidates []candidate, build func(candidate) *endpointv3.LbEndpoint,
) *endpointv3.ClusterLoadAssignment {
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), a.Address.Compare(b.Address), cmp.Compare(a.Identity, b.Identity))
	})
	type group struct {
		priority      uint32
		zone, subZone string
	}
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	seen := map[netip.AddrPort]bool{}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	// Envoy wants priorities from 0 on, and without gaps.
	priority, rank := uint32(0), 0
	for _, c := range candidates {
		if seen[c.at] {
			continue
		}
		if len(seen) > 0 && c.rank != rank {
			priority++
		}
		seen[c.at], rank = true, c.rank
		g := group{priority, c.Zone, c.subZone}
		l := groups[g]
		if l == nil {
			l = &endpointv3.LocalityLbEndpoints{
				Priority: priority, Locality: &corev3.Locality{Zone: c.Zone, SubZone: c.subZone},
			}
			groups[g], out.Endpoints = l, append(out.Endpoints, l)
		}
		l.LbEndpoints = append(l.LbEndpoints, build(c))
	}
	slices.SortFunc(out.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone),
			cmp.Compare(a.Locality.SubZone, b.Locality.SubZone))
	})
	return out
}

// reachedAt is the address that a proxy connects to: the other proxy's in the mesh, else the application's.
func reachedAt(e model.Endpoint) netip.AddrPort {
	if e.MTLS && e.Address.IsValid() {
		return netip.AddrPortFrom(e.Address.Addr(), names.PortMTLS)
	}
	return e.Address
}

// lbEndpoint is an endpoint with its metadata. In the mesh it has the name of its port, which is what its pod's proxy
// is asked for.
func lbEndpoint(c candidate, metadata *corev3.Metadata) *endpointv3.LbEndpoint {
	lb := envoy.LbEndpoint(envoy.Address(c.at), metadata)
	if c.MTLS {
		lb.GetEndpoint().Hostname = strconv.Itoa(int(c.Address.Port()))
	}
	return lb
}
