// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"slices"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A table has the guards of a way for each match of each rule that leads there, so few policies and a few matches are
// much together, and each may be another one's. Routes pay for it, those for Services of other namespaces apart, as in
// the budget of routes. What is too much leads nowhere.
var (
	mostGuardsOfAuthor   = cost{rules: math.MaxInt, expressions: math.MaxInt, bytes: 16 << 20}
	mostGuardsOfConsumer = cost{rules: math.MaxInt, expressions: 256, bytes: 2 << 20}
)

func (i *Ingest) defineWays(g *memo.Graph) {
	i.guardBillOf = memo.Define(g, "guardBill", reflectEqual[*bill], i.guardBill)
	i.overGuards = memo.Define(g, "overGuards", reflectEqual[map[model.ObjectRef]overWay], i.tooManyGuards).Steady()
}

// overWay is about a route whose ways cost too much.
type overWay struct {
	// untried: they don't without the policies that are only tried, so these aren't tried there. Else refused says why its
	// requests are answered 500.
	untried bool
	refused Verdict
}

// guardBill is what the guards of a route's ways cost, by the namespace of the Services that it is for; nil if nothing.
func (i *Ingest) guardBill(c *memo.Ctx, ref model.ObjectRef) *bill {
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	out := &bill{ref: ref, created: r.created, of: map[string]cost{}, tried: map[string]cost{}}
	for _, p := range r.parents {
		if _, over := i.over(c, ref, p.service.Namespace); over {
			continue // so no table has it
		}
		for _, at := range p.attachments {
			inForce, tried := i.guardsOfWays(c, r.Rules, at.Port)
			if inForce.plus(tried) != (cost{}) {
				out.of[p.service.Namespace] = out.of[p.service.Namespace].plus(inForce)
				out.tried[p.service.Namespace] = out.tried[p.service.Namespace].plus(tried)
			}
		}
	}
	if len(out.of) == 0 {
		return nil
	}
	return out
}

// guardsOfWays are what the policies cost that are in force on the ways of rules, and those that are only tried.
func (i *Ingest) guardsOfWays(c *memo.Ctx, rules []model.Rule, at model.ServicePort) (inForce, tried cost) {
	if at == (model.ServicePort{}) {
		return inForce, tried
	}
	b := i.guardBuilder(c, at)
	for _, r := range rules {
		for _, backend := range r.Backends {
			if !backend.Invalid {
				for _, g := range b.guards(r, backend) {
					inForce = inForce.plus(costOfGuard(g.InForce()).times(copies(r)))
					tried = tried.plus(costOfGuard(g.Tried()).times(copies(r)))
				}
			}
		}
	}
	return inForce, tried
}

func costOfGuard(g model.Guard) (out cost) {
	for _, l := range g.Levels() {
		for _, p := range l.Policies {
			out = out.plus(costOfAccess(p))
		}
	}
	for _, name := range g.Authentication {
		out.bytes += len(name.String())
	}
	for _, a := range g.Asked {
		out = out.plus(cost{bytes: bytesOfFilters([]model.Filter{{ExternalAuth: &a}})})
	}
	return out
}

// tooManyGuards says of which of a namespace's routes for the Services of a namespace the ways cost too much. Policies
// that are only tried come last: they make no request fail.
func (i *Ingest) tooManyGuards(c *memo.Ctx, k consumer) map[model.ObjectRef]overWay {
	by, most := listing{guardBills, cluster.ByConsumer, k.author + "/" + k.owner}, mostGuardsOfConsumer
	if k.author == k.owner {
		by, most = listing{guardBills, cluster.ByNamespace, k.author}, mostGuardsOfAuthor
	}
	if all := i.sumOf(c, by); all.of[k.owner].plus(all.tried[k.owner]).within(most) {
		return nil // nearly always
	}
	bills := billsOf(c, i.guardBillOf, i.routesBy(c, by.index, by.value))
	var out map[model.ObjectRef]overWay
	note := func(ref model.ObjectRef, over overWay) {
		if out == nil {
			out = map[model.ObjectRef]overWay{}
		}
		out[ref] = over
	}
	spent := spend(bills, func(b *bill) cost { return b.of[k.owner] }, most, func(b *bill, older cost) {
		note(b.ref, overWay{refused: Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: fmt.Sprintf(
			"the policies of what the routes of namespace %s for Services of namespace %s lead to are limited to %d bytes, "+
				"each counted for each port and match that leads there. This route has %d, older ones have %d, so its requests "+
				"are answered 500: use fewer matches, or smaller policies",
			k.author, k.owner, most.bytes, b.of[k.owner].bytes, older.bytes)}})
	})
	served := slices.DeleteFunc(slices.Clone(bills), func(b *bill) bool { _, over := out[b.ref]; return over })
	left := most.plus(spent.times(-1))
	spend(served, func(b *bill) cost { return b.tried[k.owner] }, left, func(b *bill, _ cost) {
		note(b.ref, overWay{untried: true})
	})
	return out
}

// overWays tells of a route whose requests are answered 500, for its ways cost too much.
func (i *Ingest) overWays(c *memo.Ctx, ref model.ObjectRef, owner string) *Verdict {
	if over, is := i.overGuards.Get(c, consumer{ref.Namespace, owner})[ref]; is && !over.untried {
		return &over.refused
	}
	return nil
}

// untried tells whether policies that are only tried are left out on the ways of a route.
func (i *Ingest) untried(c *memo.Ctx, ref model.ObjectRef, owner string) bool {
	return i.overGuards.Get(c, consumer{ref.Namespace, owner})[ref].untried
}
