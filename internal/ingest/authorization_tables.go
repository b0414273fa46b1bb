// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// guardBuilder finds the guards of the rules of one table.
type guardBuilder struct {
	i *Ingest
	c *memo.Ctx
	// at is the port that the requests are for, own the guards of the pods behind it.
	at  model.ServicePort
	own []model.Guard
}

func (i *Ingest) guardBuilder(c *memo.Ctx, at model.ServicePort) *guardBuilder {
	return &guardBuilder{i: i, c: c, at: at, own: i.guardsOf(c, at)}
}

// ownGuards are those of the requests to an attachment that no rule takes elsewhere. A port that is TCP has some, too:
// requests come on connections from when it was HTTP.
func (i *Ingest) ownGuards(c *memo.Ctx, at model.Attachment) []model.Guard {
	if at.Port == (model.ServicePort{}) {
		return nil
	}
	b := i.guardBuilder(c, at.Port)
	return b.askable(b.own)
}

// rule is one with the guards of all that it leads to, and is the same where there are none.
func (b *guardBuilder) rule(r *model.Rule) *model.Rule {
	a := r.ExternalAuth()
	unasked := a != nil && !a.Invalid && b.i.unaskable(b.c, b.at, a.Service, r.Source.Namespace) != ""
	if unextended := b.i.unextended(b.c, *r, b.at) != nil; unasked || unextended {
		r = new(refusing(*r, unasked, unextended))
	}
	out := r
	for n, backend := range r.Backends {
		if backend.Invalid {
			continue
		}
		guards := b.askable(b.guards(*r, backend))
		if len(guards) == 0 {
			continue
		}
		out = changeable(out, r)
		if b.i.overWays(b.c, r.Source, b.at.Namespace) != nil {
			out.Backends[n].Invalid = true
			continue
		}
		if b.i.untried(b.c, r.Source, b.at.Namespace) {
			guards = inForce(guards)
		}
		out.Backends[n].Guards = guards
		out.Backends[n].Invalid = b.i.forges(b.c, *r, backend, guards) != ""
	}
	return out
}

// inForce are guards without what is only tried.
func inForce(guards []model.Guard) (out []model.Guard) {
	for _, g := range guards {
		out = addGuard(out, g.InForce())
	}
	return out
}

// guards of the requests that a rule sends to a backend. The policies of what the requests are for and those of a route
// of its own namespace are one guard, for they add up; what another namespace says of its own requests, or of its pods,
// is another.
func (b *guardBuilder) guards(r model.Rule, to model.Backend) []model.Guard {
	var out []model.Guard
	own, backend := b.own, to.Port
	switch {
	case to.External != nil:
		own, backend = b.outwards(), b.at
	case backend != b.at:
		own = addGuard(nil, b.i.requestGuard(b.c, b.at))
	}
	if route := b.route(r.Source); len(route) > 0 {
		if r.Source.Namespace != b.at.Namespace || len(own) == 0 {
			// What its rules say of claims is about the tokens that the Service asks for.
			own = append([]model.Guard{{Application: route, Authentication: model.Needed(own)}}, own...)
		} else {
			own = slices.Clone(own)
			for n := range own {
				own[n].Application = addPolicies(own[n].Application, route)
			}
		}
	}
	for _, g := range own {
		out = addGuard(out, g)
	}
	var others []model.ServicePort
	if backend != b.at {
		others = append(others, backend)
	}
	for _, f := range r.Filters {
		if f.Mirror != nil && !f.Mirror.Backend.Invalid {
			others = append(others, f.Mirror.Backend.Port)
		}
	}
	for _, port := range others {
		for _, g := range b.i.guardsOf(b.c, port) {
			out = addGuard(out, g)
		}
	}
	return out
}

// outwards are the guards of a way that leaves the cluster. No pod is there whose guards would be asked, so those of
// the Service are, of both levels; those for its namespace as a whole and the mesh's default are for it as they are for
// pods; those of the Service's pods, if it has some, besides.
func (b *guardBuilder) outwards() []model.Guard {
	g := b.i.serviceGuard(b.c, b.at)
	for _, a := range b.i.aimsIn.Get(b.c, b.at.Namespace) {
		if p := b.i.accessPolicyOf.Get(b.c, a.policy); p != nil && !a.application && a.wholeNamespace() {
			g.Network = append(g.Network, policiesAt([]model.AccessPolicy{p.AccessPolicy}, b.at.Port)...)
		}
	}
	slices.SortStableFunc(g.Network, func(a, b model.AccessPolicy) int { return byName(a.Name, b.Name) })
	g.Network = slices.CompactFunc(g.Network, func(a, b model.AccessPolicy) bool { return a.Name == b.Name })
	g.DefaultDeny = b.i.Settings.Get(b.c, struct{}{}).defaultDeny
	return addGuard(slices.Clone(b.own), g)
}

// route are the policies that are for a route.
func (b *guardBuilder) route(ref model.ObjectRef) []model.AccessPolicy {
	ports := map[cluster.Key][]uint16{}
	for _, a := range b.i.aimsIn.Get(b.c, ref.Namespace) {
		if a.application && slices.Contains(a.routes, ref) {
			ports[a.policy] = []uint16{b.at.Port}
		}
	}
	return b.i.policiesOf(b.c, ports)
}

// addPolicies adds policies that aren't there yet.
func addPolicies(to, more []model.AccessPolicy) []model.AccessPolicy {
	out := slices.Clone(to)
	for _, p := range more {
		if !slices.ContainsFunc(out, func(have model.AccessPolicy) bool { return have.Name == p.Name }) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b model.AccessPolicy) int { return byName(a.Name, b.Name) })
	return out
}
