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
// expression, which grows with what it is asked, to some MB; every rule costs tens of KB, and what it says besides: each match
// of a rule has all that the rule does, for each port. The Services' own namespace has no such budget: it pays with its own
// waypoint. But the operator makes it all, so no single route may be larger than all of a consumer's.
const (
	mostExpressions = 64
	mostRules       = 4096
	mostBytes       = 16 << 20
)

// consumer is a namespace with routes for Services of another.
type consumer struct{ author, owner string }

// cost of routes in the tables of a waypoint.
type cost struct{ rules, expressions, bytes int }

func (a cost) plus(b cost) cost {
	return cost{a.rules + b.rules, a.expressions + b.expressions, a.bytes + b.bytes}
}

func (a cost) fits() bool {
	return a.rules <= mostRules && a.expressions <= mostExpressions && a.bytes <= mostBytes
}

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
		if all := spent.plus(own); all.fits() {
			spent = all
			continue
		}
		out[r.Ref] = Verdict{string(ReasonOverBudget), fmt.Sprintf(
			"the routes of a namespace for Services of another may have %d regular expressions, %d matches and %d bytes, each counted "+
				"for each port, and what a rule does for each of its matches: this one has %d, %d and %d, and older ones of "+
				"namespace %s for Services of %s have %d, %d and %d (what reaches these Services from there and no other route matches is answered 404; use fewer, or have the route "+
				"made in namespace %s)",
			mostExpressions, mostRules, mostBytes, own.expressions, own.rules, own.bytes,
			k.author, k.owner, spent.expressions, spent.rules, spent.bytes, k.owner)}
	}
	return out
}

// over tells whether a route is too much for the Services of a namespace.
func (i *Ingest) over(c *memo.Ctx, ref model.ObjectRef, owner string) (Verdict, bool) {
	if ref.Namespace == owner {
		r := i.Route.Get(c, ref)
		if r == nil || costOf(r, owner).bytes <= mostBytes {
			return Verdict{}, false
		}
		return Verdict{string(ReasonOverBudget), fmt.Sprintf("a route may have %d bytes, counted for each port, and what a rule does "+
			"for each of its matches: this one has %d (use several, or name the port in parentRefs)", mostBytes, costOf(r, owner).bytes)}, true
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
		out.bytes += ports * bytesOf(rule)
	}
	return out
}

// bytesOf are the bytes that a rule's author wrote and may make as many of as the API lets them: of matches, of changes of headers,
// and of backends, with those that come with each.
func bytesOf(r model.Rule) int {
	const backend = 128
	n := bytesOfFilters(r.Filters) + len(r.Match.GRPCService) + len(r.Match.GRPCMethod)
	if r.Match.Path != nil {
		n += len(r.Match.Path.Value)
	}
	for _, m := range slices.Concat(r.Match.Headers, r.Match.Query) {
		n += len(m.Name) + len(m.Value)
	}
	for _, b := range r.Backends {
		n += backend + bytesOfFilters(b.Filters)
	}
	return n
}

func bytesOfFilters(filters []model.Filter) int {
	n := 0
	for _, f := range filters {
		for _, change := range []*model.HeaderChange{f.RequestHeaders, f.ResponseHeaders} {
			if change == nil {
				continue
			}
			for _, h := range slices.Concat(change.Set, change.Add) {
				n += len(h.Name) + len(h.Value)
			}
			n += len(strings.Join(change.Remove, ""))
		}
		if f.CORS != nil {
			n += len(strings.Join(slices.Concat(f.CORS.AllowOrigins, f.CORS.AllowMethods, f.CORS.AllowHeaders, f.CORS.ExposeHeaders), ""))
		}
	}
	return n
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
