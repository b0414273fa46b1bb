// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

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

// Endpoints are the endpoints of a service port as waypoints reach them, grouped by zone. Those that drain have the lower
// priority: they get traffic only when no other is left. The order of the input does not matter.
func Endpoints(p model.ServicePort, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	type group struct {
		priority uint32
		zone     string
	}
	// Priorities must start at 0, so draining endpoints alone have it.
	var behind uint32
	for _, e := range endpoints {
		if e.Address.IsValid() && !e.Draining {
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
		if !e.Address.IsValid() || seen[e.Address] {
			continue
		}
		seen[e.Address] = true
		g := group{zone: e.Zone}
		if e.Draining {
			g.priority = behind
		}
		locality := groups[g]
		if locality == nil {
			locality = &endpointv3.LocalityLbEndpoints{Priority: g.priority, Locality: &corev3.Locality{Zone: g.zone}}
			groups[g] = locality
			cla.Endpoints = append(cla.Endpoints, locality)
		}
		locality.LbEndpoints = append(locality.LbEndpoints, endpoint(e))
	}
	slices.SortFunc(cla.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	return cla
}

// endpoint in the mesh is the tunnel listener with all that it needs to know; outside of it, the address itself. The
// identity is part of the internal address: where it changes, Envoy takes the endpoint for another one and drops the
// connections that were good for the identity before.
func endpoint(e model.Endpoint) *endpointv3.LbEndpoint {
	target := e.Address.String()
	tunnel := map[string]string{names.MetadataTarget: target}
	address := envoy.Address(e.Address)
	if e.MTLS {
		address = envoy.InternalAddress(names.ListenerTunnel, target+"/"+digest(e.Identity))
		tunnel[names.MetadataMTLS] = netip.AddrPortFrom(e.Address.Addr(), names.PortMTLS).String()
		tunnel[names.MetadataPort] = strconv.Itoa(int(e.Address.Port()))
		tunnel[names.MetadataIdentity] = e.Identity
	}
	return envoy.LbEndpoint(address, envoy.Metadata(map[string]map[string]string{names.MetadataTunnel: tunnel}))
}

// digest tells identities apart where they should not be read, as in the cookie of a session.
func digest(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return hex.EncodeToString(sum[:8])
}
