// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// This file answers what holds of one object, for who asks about no caller in particular.

// Pod is what holds of a pod.
type Pod struct {
	// Member: those in the mesh reach it by mutual TLS.
	Member bool
	// Identity is "" where it has none.
	Identity string
	// Guard of its node's proxy; nil where nothing guards it.
	Guard *model.PodGuard
}

// Pod that is there.
func (m *Mesh) Pod(key types.NamespacedName) (out Pod, found bool) {
	pod, ok := m.store.Pods.Get(nil, key)
	if !ok {
		return out, false
	}
	if work := (&walk{Mesh: m}).workload(pod); work != nil {
		out.Member, out.Identity = work.MTLS, work.Identity
	}
	if out.Member {
		out.Guard = m.ingest.PodGuard.Get(nil, key)
	}
	return out, true
}

// Service is what holds of a Service.
type Service struct {
	Ports []Port
	// Headless and External Services have no address that a waypoint could serve.
	Headless, External bool
	// LeftOut says which endpoints proxies don't know, in a sentence each.
	LeftOut []string
}

// Port is what holds of a port of a Service.
type Port struct {
	model.Port
	// Served is as what the waypoint takes it; "" without one.
	Served    model.Protocol
	Endpoints []Endpoint
	// Routes that have rules for requests to it.
	Routes []model.ObjectRef
	// Guards at the waypoint: a caller must get past all of them.
	Guards []model.Guard
	// Traffic is the TrafficPolicy that is in force there; "" if none is.
	Traffic string
}

// Endpoint of a Service, and the pod that has its address, if one has.
type Endpoint struct {
	model.Endpoint
	Pod types.NamespacedName
}

// Service that is there.
func (m *Mesh) Service(name types.NamespacedName) (out Service, found bool) {
	s := m.ingest.Service.Get(nil, name)
	if s == nil {
		return out, false
	}
	out.Headless, out.External = len(s.VIPs) == 0 && !s.External, s.External
	b := m.ingest.Bound.Get(nil, name)
	var waypoint *model.Waypoint
	if b.Problem == "" && b.Unsupported == "" && b.Waypoint.Name != "" {
		waypoint = m.ingest.Waypoint.Get(nil, b.Waypoint)
	}
	w := &walk{Mesh: m}
	for _, p := range s.Ports {
		at := model.ServicePort{Namespace: name.Namespace, Service: name.Name, Port: p.Number}
		port := Port{Port: p, Endpoints: m.endpoints(at)}
		if waypoint != nil {
			if served, ok := waypoint.Port(at); ok {
				port.Served = served.Protocol
			}
			table := m.ingest.Table.Get(nil, model.Attachment{Port: at})
			port.Routes, port.Guards, port.Traffic = sources(table), table.Guards, m.ingest.TrafficPolicyAt(nil, at)
			if !port.Served.HTTP() {
				port.Guards = w.tcpGuards(b.Waypoint, at)
			}
		}
		out.Ports = append(out.Ports, port)
	}
	out.LeftOut = leftOut(m.ingest.LeftOut.Get(nil, name))
	return out, true
}

// Endpoints of a port of a Service, and whether there is such a port.
func (m *Mesh) Endpoints(at model.ServicePort) (out []Endpoint, found bool) {
	s := m.ingest.Service.Get(nil, at.ServiceName())
	if s == nil {
		return nil, false
	}
	_, found = s.Port(at.Port)
	return m.endpoints(at), found
}

func (m *Mesh) endpoints(at model.ServicePort) (out []Endpoint) {
	for _, e := range m.ingest.Endpoints.Get(nil, at) {
		end := Endpoint{Endpoint: e}
		if pods := m.store.Pods.By(nil, cluster.ByAddress, e.Address.Addr().String()); len(pods) > 0 {
			end.Pod = pods[0]
		}
		out = append(out, end)
	}
	return out
}

// sources are the routes that a table has rules of, each once.
func sources(t *model.RouteTable) (out []model.ObjectRef) {
	add := func(rules []*model.Rule) {
		for _, r := range rules {
			if !slices.Contains(out, r.Source) {
				out = append(out, r.Source)
			}
		}
	}
	for _, c := range t.Callers {
		add(c.Rules)
	}
	add(t.Default)
	return out
}

func leftOut(l ingest.LeftOut) (out []string) {
	if l.TooMany {
		out = append(out, "it has more endpoints than proxies are told of, so they know only some of them")
	}
	if l.Stray != "" {
		out = append(out, "waypoints leave out "+l.Stray+", for they would get past the guard of its pod")
	}
	if l.Outsider != "" {
		out = append(out, "waypoints of other namespaces leave out "+l.Outsider+
			", for it is no pod's of the Service's namespace")
	}
	if l.Waypoint != "" {
		out = append(out, "waypoint "+l.Waypoint+" of another namespace knows only some of its endpoints")
	}
	return out
}
