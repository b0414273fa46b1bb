// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// WaypointEndpoints are the endpoints of a service port as waypoints reach them, grouped by zone. Those that drain have the lower
// priority: they get traffic only when no other is left. The order of the input does not matter. Envoy tells endpoints of
// a cluster by their address, which all ports of a pod in the mesh share: of two ports of one pod behind one port of a
// Service (slices made by hand can have that), the first serves.
func WaypointEndpoints(p model.ServicePort, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	type group struct {
		priority  uint32
		zone, way string
	}
	// Priorities must start at 0, so draining endpoints alone have it.
	var behind uint32
	for _, e := range endpoints {
		if reachedAt(e).IsValid() && !e.Draining {
			behind = 1
		}
	}
	sorted := slices.SortedFunc(slices.Values(endpoints), func(a, b model.Endpoint) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Identity, b.Identity))
	})
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: names.WaypointEndpoints(p.Namespace, p.Service, p.Port)}
	seen := map[netip.AddrPort]bool{}
	for _, e := range sorted {
		at := reachedAt(e)
		if !at.IsValid() || seen[at] {
			continue
		}
		seen[at] = true
		g := group{zone: e.Zone, way: way(e)}
		if e.Draining {
			g.priority = behind
		}
		locality := groups[g]
		if locality == nil {
			locality = &endpointv3.LocalityLbEndpoints{
				Priority: g.priority, Locality: &corev3.Locality{Zone: g.zone, SubZone: g.way},
			}
			groups[g] = locality
			cla.Endpoints = append(cla.Endpoints, locality)
		}
		locality.LbEndpoints = append(locality.LbEndpoints, portEndpoint(e, at))
	}
	slices.SortFunc(cla.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone),
			cmp.Compare(a.Locality.SubZone, b.Locality.SubZone))
	})
	return cla
}

// reachedAt is the address that the waypoint connects to: the proxy's in the mesh, else the application's. There is none where
// nobody may answer.
func reachedAt(e model.Endpoint) netip.AddrPort {
	if e.MTLS && e.Identity == "" {
		return netip.AddrPort{}
	}
	if e.MTLS && e.Address.IsValid() {
		return netip.AddrPortFrom(e.Address.Addr(), names.PortMTLS)
	}
	return e.Address
}

// way tells apart who may answer. Envoy takes an endpoint that changes its locality for another one, and drops the connections
// that were good for the one before, which it would not do for another identity alone.
func way(e model.Endpoint) string {
	if !e.MTLS {
		return envoy.WayPlaintext
	}
	sum := sha256.Sum256([]byte(e.Identity))
	return hex.EncodeToString(sum[:8])
}

// portEndpoint is at an address. It is reached in plain, or by mTLS as the SPIFFE ID that may answer there. In the mesh it has the name of its port, which is what its pod's proxy is asked for.
func portEndpoint(e model.Endpoint, at netip.AddrPort) *endpointv3.LbEndpoint {
	reached, told := envoy.WayPlaintext, map[string]string{names.MetadataTarget: e.Address.String()}
	if e.MTLS {
		reached, told[names.MetadataIdentity] = e.Identity, e.Identity
	}
	lb := envoy.LbEndpoint(envoy.Address(at), envoy.Metadata(map[string]map[string]string{
		envoy.MetadataSocketMatch: envoy.ReachedBy(reached),
		names.MetadataEndpoint:    told,
	}))
	if e.MTLS {
		lb.GetEndpoint().Hostname = strconv.Itoa(int(e.Address.Port()))
	}
	return lb
}
