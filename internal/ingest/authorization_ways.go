// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"

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
	i.overGuards = memo.Define(g, "overGuards", reflectEqual[map[model.ObjectRef]Verdict], i.tooManyGuards).Steady()
}

// guardBill is what the guards of a route's ways cost, by the namespace of the Services that it is for; nil if nothing.
func (i *Ingest) guardBill(c *memo.Ctx, ref model.ObjectRef) *bill {
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	out := &bill{ref: ref, created: r.created, of: map[string]cost{}}
	for _, p := range r.parents {
		if _, over := i.over(c, ref, p.service.Namespace); over {
			continue // so no table has it
		}
		for _, at := range p.attachments {
			if price := i.guardsOfWays(c, r.Rules, at.Port); price != (cost{}) {
				out.of[p.service.Namespace] = out.of[p.service.Namespace].plus(price)
			}
		}
	}
	if len(out.of) == 0 {
		return nil
	}
	return out
}

func (i *Ingest) guardsOfWays(c *memo.Ctx, rules []model.Rule, at model.ServicePort) (out cost) {
	if at == (model.ServicePort{}) {
		return out
	}
	b := i.guardBuilder(c, at)
	for _, r := range rules {
		for _, backend := range r.Backends {
			if !backend.Invalid {
				for _, g := range b.guards(r, backend) {
					out = out.plus(costOfGuard(g).times(copies(r)))
				}
			}
		}
	}
	return out
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

// tooManyGuards says of which of a namespace's routes for the Services of a namespace the ways cost too much.
func (i *Ingest) tooManyGuards(c *memo.Ctx, k consumer) map[model.ObjectRef]Verdict {
	refs, most := i.routesFor(c, k), mostGuardsOfConsumer
	if k.author == k.owner {
		refs, most = i.routesBy(c, cluster.ByNamespace, k.author), mostGuardsOfAuthor
	}
	bills := billsOf(c, i.guardBillOf, refs)
	var out map[model.ObjectRef]Verdict
	spend(bills, func(b *bill) cost { return b.of[k.owner] }, most, func(b *bill, older cost) {
		if out == nil {
			out = map[model.ObjectRef]Verdict{}
		}
		out[b.ref] = Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: fmt.Sprintf(
			"the policies of what the routes of namespace %s for Services of namespace %s lead to are limited to %d bytes, "+
				"each counted for each port and match that leads there. This route has %d, older ones have %d, so its requests "+
				"are answered 500: use fewer matches, or smaller policies",
			k.author, k.owner, most.bytes, b.of[k.owner].bytes, older.bytes)}
	})
	return out
}

// overWays tells of a route whose ways cost too much.
func (i *Ingest) overWays(c *memo.Ctx, ref model.ObjectRef, owner string) *Verdict {
	if v, over := i.overGuards.Get(c, consumer{ref.Namespace, owner})[ref]; over {
		return &v
	}
	return nil
}
