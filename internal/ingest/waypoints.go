// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Binding says which waypoint serves a Service. The zero value: none does.
type Binding struct {
	Waypoint cluster.Key // of the Gateway
	// Automatic: the operator is to make the waypoint.
	Automatic bool
	// Pending: the automatic waypoint has never served yet. Until it has, connections go straight to the Service, so
	// that a first route does not interrupt the traffic that is there.
	Pending bool
	// Problem says why the waypoint can't serve; connections to the Service are refused then, never let through.
	Problem string
}

// None tells that no waypoint is asked for.
func (b Binding) None() bool { return b == Binding{} }

func (i *Ingest) binding(c *memo.Ctx, key cluster.Key) Binding {
	svc := i.Service.Get(c, key)
	if svc == nil || !svc.Enrolled {
		return Binding{}
	}
	use := i.useWaypoint(c, key)
	switch use {
	case names.UseWaypointNone:
		return Binding{}
	case "", names.UseWaypointAuto:
		if !i.routed(c, key) {
			return Binding{}
		}
		b := Binding{Waypoint: cluster.Key{Namespace: key.Namespace, Name: names.AutomaticWaypoint}, Automatic: true}
		b.Pending = !cluster.GatewayEstablished(i.gateway(c, b.Waypoint))
		return b
	}
	b := Binding{Waypoint: cluster.Key{Namespace: key.Namespace, Name: use}}
	if i.gateway(c, b.Waypoint) == nil {
		b.Problem = fmt.Sprintf("label %s names %q, but namespace %s has no Gateway of that name with class %s",
			names.LabelUseWaypoint, use, key.Namespace, names.WaypointClass)
	}
	return b
}

// useWaypoint reads the label of the Service, else that of its namespace.
func (i *Ingest) useWaypoint(c *memo.Ctx, key cluster.Key) string {
	if s, ok := i.store.Services.Get(c, key); ok && s.Labels[names.LabelUseWaypoint] != "" {
		return s.Labels[names.LabelUseWaypoint]
	}
	if ns, ok := i.store.Namespaces.Get(c, cluster.Key{Name: key.Namespace}); ok {
		return ns.Labels[names.LabelUseWaypoint]
	}
	return ""
}

// routed tells whether any route was accepted for the Service.
func (i *Ingest) routed(c *memo.Ctx, key cluster.Key) bool {
	for _, ref := range i.routesOf(c, key) {
		if r := i.Route.Get(c, ref); r != nil && r.attachesTo(key) {
			return true
		}
	}
	return false
}

// gateway finds a Gateway that is a waypoint of ours.
func (i *Ingest) gateway(c *memo.Ctx, key cluster.Key) *gwv1.Gateway {
	g, ok := i.store.Gateways.Get(c, key)
	if !ok || g.DeletionTimestamp != nil {
		return nil
	}
	class, ok := i.store.GatewayClasses.Get(c, cluster.Key{Name: string(g.Spec.GatewayClassName)})
	if !ok || class.Spec.ControllerName != names.GatewayController || class.Name != names.WaypointClass {
		return nil
	}
	return g
}

func (i *Ingest) waypointIdentity(c *memo.Ctx, gateway cluster.Key) string {
	return names.SPIFFEID(i.trustDomain(c), gateway.Namespace, names.WaypointResource(gateway.Name))
}

func (i *Ingest) waypoint(c *memo.Ctx, key cluster.Key) *model.Waypoint {
	if i.gateway(c, key) == nil {
		return nil
	}
	out := &model.Waypoint{Name: key, Identity: i.waypointIdentity(c, key)}
	for _, svcKey := range i.store.Services.By(c, cluster.ByNamespace, key.Namespace) {
		if b := i.Binding.Get(c, svcKey); b.Waypoint != key || b.None() {
			continue
		}
		for _, p := range i.Service.Get(c, svcKey).Ports {
			port := model.ServicePort{Namespace: svcKey.Namespace, Service: svcKey.Name, Port: p.Number}
			if i.WaypointPort.Get(c, port) == nil {
				continue
			}
			out.Ports = append(out.Ports, port)
			out.Backends = append(out.Backends, port)
			out.Backends = append(out.Backends, tableBackends(i.Table.Get(c, port))...)
		}
	}
	slices.SortFunc(out.Ports, ComparePorts)
	slices.SortFunc(out.Backends, ComparePorts)
	out.Backends = slices.Compact(out.Backends)
	return out
}

func (i *Ingest) waypointPort(c *memo.Ctx, port model.ServicePort) *model.WaypointPort {
	svc := i.Service.Get(c, port.ServiceName())
	if svc == nil || len(svc.VIPs) == 0 || i.Binding.Get(c, port.ServiceName()).None() {
		return nil
	}
	p, ok := svc.Port(port.Port)
	if !ok {
		return nil
	}
	table := i.Table.Get(c, port)
	return &model.WaypointPort{
		ServicePort: port,
		VIPs:        svc.VIPs,
		Protocol:    table.Protocol,
		HTTP: p.Protocol == model.ProtocolHTTP || p.Protocol == model.ProtocolHTTP2 ||
			table.Default != nil || len(table.Callers) > 0,
	}
}

func (i *Ingest) needsAutomatic(c *memo.Ctx, namespace string) bool {
	for _, key := range i.store.Services.By(c, cluster.ByNamespace, namespace) {
		if i.Binding.Get(c, key).Automatic {
			return true
		}
	}
	return false
}

// tableBackends lists what the rules of a table send traffic to, mirrors included.
func tableBackends(t *model.RouteTable) []model.ServicePort {
	var out []model.ServicePort
	visit := func(rules []model.Rule) {
		for _, r := range rules {
			for _, b := range r.Backends {
				if !b.Invalid {
					out = append(out, b.Port)
				}
			}
			for _, f := range r.Filters {
				if f.Mirror != nil && !f.Mirror.Backend.Invalid {
					out = append(out, f.Mirror.Backend.Port)
				}
			}
		}
	}
	visit(t.Default)
	for _, caller := range t.Callers {
		visit(caller.Rules)
	}
	return out
}

// ComparePorts orders by namespace, service and port.
func ComparePorts(a, b model.ServicePort) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port))
}
