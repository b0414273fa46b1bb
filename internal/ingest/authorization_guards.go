// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

func (i *Ingest) podGuard(c *memo.Ctx, key cluster.Key) *model.PodGuard {
	k := i.PodKind.Get(c, key)
	if k == (PodKind{}) {
		return nil
	}
	return i.GuardOf.Get(c, k)
}

func (i *Ingest) guard(c *memo.Ctx, k PodKind) *model.PodGuard {
	out := &model.PodGuard{Guard: i.networkGuard(c, k)}
	out.Only = i.onlyOf.Get(c, k)
	if noGuard(out.Guard) && len(out.Only) == 0 {
		return out // so there is nothing that waypoints would have to be let through
	}
	for _, p := range i.portsOf.Get(c, k) {
		closed := slices.Contains(out.Only, p.target)
		for _, s := range i.sendersTo.Get(c, p.ServicePort) {
			if !s.tcp || !closed {
				out.Waypoints = append(out.Waypoints, model.GuardedPort{Port: p.target, Waypoint: s.identity})
			}
		}
	}
	slices.SortFunc(out.Waypoints, func(a, b model.GuardedPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Waypoint, b.Waypoint))
	})
	out.Waypoints = slices.Compact(out.Waypoints)
	return out
}

func noGuard(g model.Guard) bool {
	return !g.DefaultDeny && len(g.Network) == 0 && len(g.Application) == 0 && len(g.Authentication) == 0
}

// networkGuard is what the node's proxy can decide on.
func (i *Ingest) networkGuard(c *memo.Ctx, k PodKind) model.Guard {
	out := model.Guard{DefaultDeny: i.Settings.Get(c, struct{}{}).defaultDeny}
	if len(i.aimsIn.Get(c, k.namespace)) > 0 {
		out.Network = i.networkOf.Get(c, k)
	}
	return out
}

// networkPolicies are those of level Network that are for the pods of a kind, with ports of the pods.
func (i *Ingest) networkPolicies(c *memo.Ctx, k PodKind) []model.AccessPolicy {
	var out []model.AccessPolicy
	set := k.set()
	for _, a := range i.aimsIn.Get(c, k.namespace) {
		if a.application {
			continue
		}
		of := i.servicePorts(c, k, a)
		whole := a.means(set)
		if !whole && len(of) == 0 {
			continue
		}
		if p := i.accessPolicyOf.Get(c, a.policy); p != nil {
			if on := onPods(p.AccessPolicy, whole, of); !idle(on) {
				out = append(out, on)
			}
		}
	}
	return out
}

// networkAimsAt are those that networkPolicies asks.
func (i *Ingest) networkAimsAt(c *memo.Ctx, k PodKind) (out []cluster.Key) {
	set := k.set()
	for _, a := range i.aimsIn.Get(c, k.namespace) {
		if !a.application && (a.means(set) || len(i.servicePorts(c, k, a)) > 0) {
			out = append(out, a.policy)
		}
	}
	return out
}

// idle policies make no difference; an ALLOW policy without rules does.
func idle(p model.AccessPolicy) bool { return p.Deny && len(p.Rules) == 0 }

// servicePorts are the ports that pods of a kind have because of the Services that a policy names.
func (i *Ingest) servicePorts(c *memo.Ctx, k PodKind, a *aim) []podPort {
	if len(a.services) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(i.portsOf.Get(c, k)), func(p podPort) bool {
		return !slices.Contains(a.services, p.Service)
	})
}

// onPods is a policy as it is for pods: whole, with ports of their own, and for ports of Services that lead to these.
func onPods(p model.AccessPolicy, whole bool, of []podPort) model.AccessPolicy {
	rules := p.Rules
	p.Rules = nil
	if !whole {
		p.Ports = targetsOf(of, nil)
	}
	for _, r := range rules {
		switch {
		case r.Ports == nil:
			r.Ports = p.Ports
		case whole:
			r.Ports = sortedPorts(slices.Concat(r.Ports, targetsOf(of, r.Ports)))
		default:
			if r.Ports = targetsOf(of, r.Ports); len(r.Ports) == 0 {
				continue
			}
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// targetsOf are the pods' ports that ports of Services lead to; nil: all of them.
func targetsOf(of []podPort, ports []uint16) []uint16 {
	var out []uint16
	for _, p := range of {
		if ports == nil || slices.Contains(ports, p.Port) {
			out = append(out, p.target)
		}
	}
	return sortedPorts(out)
}

func sortedPorts(in []uint16) []uint16 {
	slices.Sort(in)
	return slices.Compact(in)
}

// policiesAt is what is left of a list of policies at one port: no ports, and no rules for others.
func policiesAt(in []model.AccessPolicy, ports ...uint16) []model.AccessPolicy {
	var out []model.AccessPolicy
	for _, p := range in {
		if p.Ports != nil && !containsAny(p.Ports, ports) {
			continue
		}
		rules := p.Rules
		p.Ports, p.Rules = nil, nil
		for _, r := range rules {
			if r.Ports == nil || containsAny(r.Ports, ports) {
				r.Ports = nil
				p.Rules = append(p.Rules, r)
			}
		}
		if !idle(p) {
			out = append(out, p)
		}
	}
	return out
}

func containsAny(in, of []uint16) bool {
	return slices.ContainsFunc(of, func(p uint16) bool { return slices.Contains(in, p) })
}

// only are the ports of pods at which requests are decided on: of Services that an enforced policy of level Application
// is for, or an AuthenticationPolicy. Whether a waypoint serves them does not matter.
func (i *Ingest) only(c *memo.Ctx, k PodKind) []uint16 {
	if !i.requests(c, k.namespace) {
		return nil
	}
	var out []uint16
	for _, p := range i.portsOf.Get(c, k) {
		if slices.ContainsFunc(i.requested.Get(c, p.ServiceName()), func(r requested) bool {
			return !r.dryRun && r.at(p.Port)
		}) || len(i.authenticationAt(c, p.ServicePort)) > 0 {
			out = append(out, p.target)
		}
	}
	return sortedPorts(out)
}

// applicationAt are the policies of level Application at a port of pods: of all Services that lead there, so that none
// is a way around another.
func (i *Ingest) applicationAt(c *memo.Ctx, k PodKind, target uint16) []model.AccessPolicy {
	if !i.requests(c, k.namespace) {
		return nil
	}
	ports := map[cluster.Key][]uint16{}
	for _, p := range i.portsOf.Get(c, k) {
		if p.target != target {
			continue
		}
		for _, r := range i.requested.Get(c, p.ServiceName()) {
			if !r.route {
				ports[r.policy] = append(ports[r.policy], p.Port)
			}
		}
	}
	return i.policiesOf(c, ports)
}

// policiesOf are policies at ports, sorted.
func (i *Ingest) policiesOf(c *memo.Ctx, ports map[cluster.Key][]uint16) []model.AccessPolicy {
	var out []model.AccessPolicy
	for key, at := range ports {
		if p := i.accessPolicyOf.Get(c, key); p != nil {
			out = append(out, policiesAt([]model.AccessPolicy{p.AccessPolicy}, at...)...)
		}
	}
	slices.SortFunc(out, func(a, b model.AccessPolicy) int { return byName(a.Name, b.Name) })
	return out
}

// serviceRequests are the policies of level Application of a Service's port, whatever pods are behind it.
func (i *Ingest) serviceRequests(c *memo.Ctx, port model.ServicePort) []model.AccessPolicy {
	if !i.requests(c, port.Namespace) {
		return nil
	}
	ports := map[cluster.Key][]uint16{}
	for _, r := range i.requested.Get(c, port.ServiceName()) {
		if !r.route {
			ports[r.policy] = []uint16{port.Port}
		}
	}
	return i.policiesOf(c, ports)
}

// guardsOf are guardsAt, but for the ports of all those namespaces in which nothing is guarded.
func (i *Ingest) guardsOf(c *memo.Ctx, port model.ServicePort) []model.Guard {
	if !i.guarding(c, port.Namespace) {
		return nil
	}
	return i.guardsAt.Get(c, port)
}

// guardsOfPort are the guards of the pods behind a Service's port, each once: all of them must let a request in.
func (i *Ingest) guardsOfPort(c *memo.Ctx, port model.ServicePort) []model.Guard {
	var out []model.Guard
	guarded := false
	for _, k := range i.behindOf.Get(c, port.ServiceName()) {
		for _, p := range i.portsOf.Get(c, k) {
			if p.ServicePort != port {
				continue
			}
			guarded = true
			g := i.networkGuard(c, k)
			g.Network, g.Application = policiesAt(g.Network, p.target), i.applicationAt(c, k, p.target)
			g.Authentication = i.authenticationOfPods(c, k, p.target)
			g.Asked = i.whomToAsk(c, g.Authentication)
			out = addGuard(out, g)
		}
	}
	if !guarded { // no pod of the mesh is there: what guards the Service is all that there is
		out = addGuard(out, i.serviceGuard(c, port))
	}
	return out
}

// requestGuard is what a Service's port asks of requests, whatever pods are behind it.
func (i *Ingest) requestGuard(c *memo.Ctx, port model.ServicePort) model.Guard {
	out := model.Guard{Application: i.serviceRequests(c, port), Authentication: i.authenticationAt(c, port)}
	out.Asked = i.whomToAsk(c, out.Authentication)
	return out
}

// serviceGuard is of the policies that are for a Service itself.
func (i *Ingest) serviceGuard(c *memo.Ctx, port model.ServicePort) model.Guard {
	out := i.requestGuard(c, port)
	for _, a := range i.aimsIn.Get(c, port.Namespace) {
		if p := i.accessPolicyOf.Get(c, a.policy); p != nil && !a.application && slices.Contains(a.services, port.Service) {
			out.Network = append(out.Network, policiesAt([]model.AccessPolicy{p.AccessPolicy}, port.Port)...)
		}
	}
	return out
}

// addGuard adds a guard that isn't there yet.
func addGuard(to []model.Guard, g model.Guard) []model.Guard {
	if noGuard(g) || slices.ContainsFunc(to, func(have model.Guard) bool { return reflectEqual(have, g) }) {
		return to
	}
	return append(to, g)
}

// tcpGuardsOfPort are those of a port that is passed on as it is. Where requests would have to be decided on, nobody
// comes in.
func (i *Ingest) tcpGuardsOfPort(c *memo.Ctx, port model.ServicePort) []model.Guard {
	var out []model.Guard
	for _, g := range i.guardsOf(c, port) {
		network := slices.Clone(g.Network)
		for _, p := range g.Application {
			if !p.DryRun {
				network = append(network, model.AccessPolicy{
					Name: p.Name, Edition: p.Edition, Deny: true, Rules: []model.AccessRule{{}},
				})
			}
		}
		for _, name := range g.Authentication {
			network = append(network, model.AccessPolicy{
				Name: name, Deny: true, Rules: []model.AccessRule{{Name: model.RuleAuthentication}},
			})
		}
		slices.SortStableFunc(network, func(a, b model.AccessPolicy) int { return byName(a.Name, b.Name) })
		out = addGuard(out, model.Guard{DefaultDeny: g.DefaultDeny, Network: network})
	}
	return out
}

// tcpGuards has every port that is passed on as it is; and those of HTTP that are not guarded, for when they become TCP
// or have just been, a proxy's listener learns of it some time after.
func (i *Ingest) tcpGuards(c *memo.Ctx, gateway cluster.Key) []model.TCPGuard {
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return nil
	}
	var out []model.TCPGuard
	for _, p := range w.Ports {
		if guards := i.tcpAt.Get(c, p.ServicePort); !p.Protocol.HTTP() || len(guards) == 0 {
			out = append(out, model.TCPGuard{ServicePort: p.ServicePort, Guards: guards})
		}
	}
	return out
}
