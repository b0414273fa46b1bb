// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What the routes of one namespace may cost the waypoints of another. A proxy keeps an automaton for each regular
// expression, which grows with what it is asked, to some MB; and every rule costs tens of KB. The Services' own
// namespace has no budget: it pays with its own waypoint.
const (
	mostExpressions = 64
	mostRules       = 4096
)

// consumer is a namespace with routes for Services of another.
type consumer struct{ author, owner string }

// cost of routes in the tables of a waypoint.
type cost struct{ rules, expressions int }

func (a cost) plus(b cost) cost { return cost{a.rules + b.rules, a.expressions + b.expressions} }

// overBudget says which of a consumer's routes are too much, and why. The oldest have what there is, so that a new
// route takes nothing from those that work.
func (i *Ingest) overBudget(c *memo.Ctx, k consumer) map[model.ObjectRef]Verdict {
	var routes []*Route
	for _, ref := range i.routesFor(c, k) {
		if r := i.Route.Get(c, ref); r != nil {
			routes = append(routes, r)
		}
	}
	slices.SortFunc(routes, compareRoutes)
	var spent cost
	out := map[model.ObjectRef]Verdict{}
	for _, r := range routes {
		own := costOf(r, k.owner)
		if all := spent.plus(own); all.rules <= mostRules && all.expressions <= mostExpressions {
			spent = all
			continue
		}
		out[r.Ref] = Verdict{string(ReasonOverBudget), fmt.Sprintf(
			"the routes of a namespace for Services of another may have %d regular expressions and %d matches, each counted "+
				"for each port: this one has %d and %d, and older ones of namespace %s for Services of %s have %d and %d (what "+
				"reaches these Services from there and no other route matches is answered 404; use fewer, or have the route "+
				"made in namespace %s)",
			mostExpressions, mostRules, own.expressions, own.rules, k.author, k.owner, spent.expressions, spent.rules, k.owner)}
	}
	return out
}

// over tells whether a route is too much for the Services of a namespace.
func (i *Ingest) over(c *memo.Ctx, ref model.ObjectRef, owner string) (Verdict, bool) {
	if ref.Namespace == owner {
		return Verdict{}, false
	}
	why, over := i.budget.Get(c, consumer{ref.Namespace, owner})[ref]
	return why, over
}

// costOf a route for the Services of a namespace.
func costOf(r *Route, owner string) cost {
	ports := 0
	for _, p := range r.Parents {
		if p.Service.Namespace == owner {
			ports += len(p.Ports)
		}
	}
	out := cost{rules: ports * len(r.Rules)}
	for _, rule := range r.Rules {
		out.expressions += ports * expressions(rule)
	}
	return out
}

// expressions are those that a rule's author wrote, wildcards in origins included.
func expressions(r model.Rule) int {
	n := 0
	count := func(t model.MatchType) {
		if t == model.MatchRegex {
			n++
		}
	}
	if r.Match.Path != nil {
		count(r.Match.Path.Type)
	}
	count(r.Match.GRPCType)
	for _, m := range slices.Concat(r.Match.Headers, r.Match.Query) {
		count(m.Type)
	}
	for _, f := range r.Filters {
		if f.CORS == nil {
			continue
		}
		for _, origin := range f.CORS.AllowOrigins {
			if origin != "*" && strings.Contains(origin, "*") {
				n++
			}
		}
	}
	return n
}
