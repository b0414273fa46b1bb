// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"maps"
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A Service may have many ports and many endpoints, and each of its EndpointSlices is about all of its ports. So a
// slice is read once, and the slices of a Service are put together once; only what is left is done for each port.

// slice is an EndpointSlice as it was read.
type slice struct {
	ports map[string]uint16 // by name; a Service's only port may have none
	// endpoints have no port yet. They are sorted by address.
	endpoints []model.Endpoint
}

func sameSlice(a, b *slice) bool {
	return a == b || a != nil && b != nil && maps.Equal(a.ports, b.ports) && SameEndpoints(a.endpoints, b.endpoints)
}

// SameEndpoints tells whether two lists are the same to proxies.
func SameEndpoints(a, b []model.Endpoint) bool {
	return slices.EqualFunc(a, b, func(a, b model.Endpoint) bool {
		return a.Address == b.Address && a.MTLS == b.MTLS && a.Identity == b.Identity && a.Node == b.Node &&
			a.Zone == b.Zone &&
			a.Draining == b.Draining && a.Absent == b.Absent && a.Distance == b.Distance &&
			slices.Equal(a.ForNodes, b.ForNodes) && slices.Equal(a.ForZones, b.ForZones) && slices.Equal(a.Callers, b.Callers)
	})
}

// slice is nil where there is none, or nothing that a proxy could connect to.
func (i *Ingest) slice(c *memo.Ctx, key cluster.Key) *slice {
	s, ok := i.store.EndpointSlices.Get(c, key)
	if !ok || s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	out := &slice{ports: map[string]uint16{}}
	for _, p := range s.Ports {
		if p.Port == nil || (p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP) {
			continue
		}
		if _, known := out.ports[deref(p.Name)]; !known {
			out.ports[deref(p.Name)] = portNumber(*p.Port)
		}
	}
	out.endpoints = make([]model.Endpoint, 0, len(s.Endpoints))
	for _, e := range s.Endpoints {
		serving := e.Conditions.Serving == nil || *e.Conditions.Serving
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		draining := !ready && serving && e.Conditions.Terminating != nil && *e.Conditions.Terminating
		if !ready && !draining {
			continue
		}
		addr, ok := addressOf(e)
		if ok && i.serves(c, key.Namespace, e, addr) {
			out.endpoints = append(out.endpoints, endpoint(i.Workload.Get(c, addr), addr, e, draining))
		}
	}
	slices.SortStableFunc(out.endpoints, func(a, b model.Endpoint) int { return a.Address.Compare(b.Address) })
	return out
}

// addressOf an endpoint is the first of its addresses. The API gives others no meaning, and kube-proxy doesn't look at
// them, so that an endpoint is one for budgets, too.
func addressOf(e discoveryv1.Endpoint) (addr netip.Addr, ok bool) {
	if len(e.Addresses) == 0 {
		return addr, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0])
	return addr, err == nil
}

// serves tells whether connections may go to an endpoint in a namespace at its address. Both are what a node
// says: it may make the mirror of a static pod that any Service selects, and give it any address. A mirror is nobody,
// so in the mesh it serves nobody; and a pod whose claim to the address is refused isn't there.
func (i *Ingest) serves(c *memo.Ctx, namespace string, e discoveryv1.Endpoint, addr netip.Addr) bool {
	claims := i.Claims.Get(c, addr)
	if claims.closed {
		return false
	}
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
		return true
	}
	key := cluster.Key{Namespace: e.TargetRef.Namespace, Name: e.TargetRef.Name}
	if slices.ContainsFunc(claims.Refused, func(r RefusedClaim) bool { return r.Pod == key }) {
		return false
	}
	if !member.Enrolled(i.namespace(c, namespace)) {
		return true
	}
	pod, known := i.store.Pods.Get(c, key) // one that isn't yet may be a mirror
	return known && member.Account(pod) != ""
}

// endpoint is one of a slice; w is the pod that has its address, or nil.
func endpoint(w *model.Workload, addr netip.Addr, e discoveryv1.Endpoint, draining bool) model.Endpoint {
	out := model.Endpoint{Address: netip.AddrPortFrom(addr, 0), Draining: draining}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	if e.Hints != nil {
		for _, h := range e.Hints.ForNodes {
			out.ForNodes = append(out.ForNodes, h.Name)
		}
		for _, h := range e.Hints.ForZones {
			out.ForZones = append(out.ForZones, h.Name)
		}
	}
	if w != nil && w.MTLS {
		out.MTLS, out.Identity = true, w.Identity
	}
	return out
}

// backing is what all EndpointSlices say of a Service.
type backing struct {
	slices []*slice
	// endpoints of all slices, sorted by address, but for those that were chosen.
	endpoints []backed
}

// backed is an endpoint of one of the slices, which tells its ports.
type backed struct {
	*model.Endpoint
	slice int
}

func (i *Ingest) backing(c *memo.Ctx, service cluster.Key) *backing {
	out := &backing{}
	for _, key := range i.store.EndpointSlices.By(c, cluster.ByService, service.Namespace+"/"+service.Name) {
		s := i.sliceOf.Get(c, key)
		if s == nil {
			continue
		}
		for n := range s.endpoints {
			out.endpoints = append(out.endpoints, backed{&s.endpoints[n], len(out.slices)})
		}
		out.slices = append(out.slices, s)
	}
	slices.SortStableFunc(out.endpoints, func(a, b backed) int { return a.Address.Compare(b.Address) })
	return out
}

func (i *Ingest) endpoints(c *memo.Ctx, port model.ServicePort) []model.Endpoint {
	svc := i.Service.Get(c, port.ServiceName())
	if svc == nil {
		return nil
	}
	p, ok := svc.Port(port.Port)
	if !ok {
		return nil
	}
	from, most := i.backingOf, i.most.Get(c, port.ServiceName())
	if most < math.MaxInt {
		from = i.chosenOf
	}
	out := from.Get(c, port.ServiceName()).at(p.Name, most)
	if gw, ok := i.waypointOf(c, port); ok {
		for n := range out { // a waypoint speaks mTLS itself
			out[n].MTLS, out[n].Identity = true, i.WaypointIdentity(c, gw)
		}
	}
	return out
}

// at a port of the Service, the first ones, sorted by address. The name of a port is what Service and slices have in
// common.
func (b *backing) at(name string, most int) []model.Endpoint {
	out := make([]model.Endpoint, 0, min(len(b.endpoints), most))
	for _, e := range b.endpoints {
		if len(out) == most {
			break
		}
		if number, ok := b.slices[e.slice].ports[name]; ok {
			at := *e.Endpoint
			at.Address = netip.AddrPortFrom(at.Address.Addr(), number)
			out = append(out, at)
		}
	}
	// The port of one address may differ between slices. An endpoint may be in two slices while they are rearranged.
	slices.SortStableFunc(out, func(a, b model.Endpoint) int { return a.Address.Compare(b.Address) })
	return slices.CompactFunc(out, func(a, b model.Endpoint) bool { return a.Address == b.Address })
}

// identities of most Services are one.
func (i *Ingest) identities(c *memo.Ctx, port model.ServicePort) []string {
	found := map[string]struct{}{}
	for _, e := range i.Endpoints.Get(c, port) {
		if e.MTLS {
			found[e.Identity] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
