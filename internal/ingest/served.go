// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What a waypoint has (Waypoint) is one value, which is another one whenever a route leads somewhere new. Each of its
// resources depends on a little of that, and reads no more.

// IsWaypoint tells whether a Gateway is a waypoint of ours.
func (i *Ingest) IsWaypoint(c *memo.Ctx, gateway cluster.Key) bool {
	return i.gateway(c, gateway) != nil
}

// served is what a waypoint has for the sake of Services that it serves: their ports, and where requests to these go.
type served struct {
	ports []model.ServedPort
	leads
	// tunnels: some of the backends are spoken TLS with.
	tunnels bool
}

func (s *served) sorted() *served {
	slices.SortFunc(s.ports, func(a, b model.ServedPort) int { return a.Compare(b.ServicePort) })
	s.leads.sorted()
	return s
}

func sameServed(a, b *served) bool {
	return a.tunnels == b.tunnels && slices.Equal(a.ports, b.ports) && sameLeads(&a.leads, &b.leads)
}

func (s *served) add(of *served) {
	s.ports, s.own = append(s.ports, of.ports...), append(s.own, of.own...)
	s.backends, s.externals = append(s.backends, of.backends...), append(s.externals, of.externals...)
	s.tunnels = s.tunnels || of.tunnels
}

// servedOf a Service, whichever waypoint serves it.
func (i *Ingest) servedOf(c *memo.Ctx, key cluster.Key) *served {
	out := &served{}
	svc := i.Service.Get(c, key)
	if svc == nil {
		return out
	}
	for _, p := range svc.Ports {
		at := svc.Attachment(p)
		protocol, leads := i.protocolOf.Get(c, at), i.leads.Get(c, at)
		out.ports = append(out.ports, model.ServedPort{ServicePort: at.Port, Protocol: protocol})
		if protocol.HTTP() {
			out.backends = append(out.backends, at.Port)
		}
		out.backends = append(append(out.backends, leads.backends...), i.keyServers(c, i.setsOf.Get(c, at))...)
		out.own = append(append(out.own, leads.own...), i.keyServers(c, i.ownSetsOf.Get(c, at))...)
		out.externals = append(out.externals, leads.externals...)
	}
	out.tunnels = slices.ContainsFunc(out.backends, func(p model.ServicePort) bool { return i.SpeaksTLS.Get(c, p) })
	return out.sorted()
}

// servedPart is a part of the Services of a waypoint's namespace.
type servedPart struct {
	gateway cluster.Key
	cluster.Part
}

// servedInPart adds up those that the waypoint serves.
func (i *Ingest) servedInPart(c *memo.Ctx, k servedPart) *served {
	out := &served{}
	for _, key := range i.store.Services.Part(c, cluster.ByNamespace, k.gateway.Namespace, k.Part) {
		if i.servedBy(c, k.gateway, key) {
			out.add(i.servedAs.Get(c, key))
		}
	}
	return out.sorted()
}

func (i *Ingest) servedParts(c *memo.Ctx, gateway cluster.Key) []servedPart {
	of := i.store.Services.Parts(c, cluster.ByNamespace, gateway.Namespace)
	out := make([]servedPart, 0, of)
	for n := range of {
		out = append(out, servedPart{gateway, cluster.Part{N: n, Of: of}})
	}
	return out
}

// portsInPart are the ports of a part. Where requests go changes more often.
func (i *Ingest) portsInPart(c *memo.Ctx, k servedPart) []model.ServedPort {
	return i.servedIn.Get(c, k).ports
}

// portsServed are those of all parts, sorted.
func (i *Ingest) portsServed(c *memo.Ctx, gateway cluster.Key) []model.ServedPort {
	out := &served{}
	for _, part := range i.servedParts(c, gateway) {
		out.ports = append(out.ports, i.portsIn.Get(c, part)...)
	}
	return out.sorted().ports
}

// servedBy tells whether a waypoint serves a Service of its namespace.
func (i *Ingest) servedBy(c *memo.Ctx, gateway, svc cluster.Key) bool {
	b := i.Binding.Get(c, svc)
	return b.Waypoint == gateway && !b.unserved() && !b.OverBudget
}

// Serves tells whether a waypoint serves a port, and as what.
func (i *Ingest) Serves(c *memo.Ctx, gateway cluster.Key, port model.ServicePort) (model.Protocol, bool) {
	key := port.ServiceName()
	svc := i.Service.Get(c, key)
	if svc == nil || key.Namespace != gateway.Namespace || i.gateway(c, gateway) == nil ||
		!i.servedBy(c, gateway, key) {
		return "", false
	}
	if _, ok := svc.Port(port.Port); !ok {
		return "", false
	}
	return i.protocolOf.Get(c, model.Attachment{Port: port}), true
}

func (i *Ingest) front(c *memo.Ctx, gateway cluster.Key) *model.Waypoint {
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return nil
	}
	return &model.Waypoint{Name: w.Name, Identity: w.Identity, Listen: w.Listen, Headers: w.Headers, Ports: w.Ports}
}

// SendsRequestsTo tells whether a waypoint sends requests to a port.
func (i *Ingest) SendsRequestsTo(c *memo.Ctx, gateway cluster.Key, port model.ServicePort) bool {
	if protocol, ok := i.Serves(c, gateway, port); ok && protocol.HTTP() {
		return true
	}
	return i.roleOf(c, gateway, port).backend
}

// LeavesBy tells whether requests leave a waypoint by an XBackend.
func (i *Ingest) LeavesBy(c *memo.Ctx, gateway, external cluster.Key) bool {
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(w.Externals, external, byName)
	return found
}

// Tunnels tells whether a waypoint speaks TLS with some backend.
func (i *Ingest) Tunnels(c *memo.Ctx, gateway cluster.Key) bool { return i.tunnels.Get(c, gateway) }

func (i *Ingest) hasTunnels(c *memo.Ctx, gateway cluster.Key) bool {
	w := i.Waypoint.Get(c, gateway)
	return w != nil && w.Tunnels
}

// WordTo is by whose word a waypoint sends to a port.
func (i *Ingest) WordTo(c *memo.Ctx, gateway cluster.Key, port model.ServicePort) Word {
	if port.Namespace == gateway.Namespace {
		return OfOwner
	}
	return i.roleOf(c, gateway, port).word
}
