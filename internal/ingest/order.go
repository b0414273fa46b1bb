// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A table may have rules by the thousand, of which one change is about few. So what is made of each rule is made for
// itself, once, and a table only puts the rules into their order.

func (i *Ingest) defineTables(g *memo.Graph) {
	i.rulesOf = memo.Define(g, "rules", reflectEqual[[]placedRule], i.rulesIn)
	i.OwnGuards = memo.Define(g, "ownGuards", reflectEqual[[]model.Guard], i.ownGuards).Steady()
	i.Table = memo.Define(g, "table", sameTable, i.table)
	i.leadsOfRoute = memo.Define(g, "leadsOfRoute", sameLeads, i.leadsOf).Steady()
	i.leads = memo.Define(g, "leads", sameLeads, i.leadsFrom).Steady()
}

// routeAt is a route as an attachment has it.
type routeAt struct {
	ref model.ObjectRef
	at  model.Attachment
}

// placedRule is a rule with what says where in a table it is.
type placedRule struct {
	*model.Rule
	rank uint64
}

// rulesIn are the rules of a route as the table of an attachment has them: with sessions and guards as are to be had
// where they lead. Those that have none are the route's own.
func (i *Ingest) rulesIn(c *memo.Ctx, k routeAt) []placedRule {
	r := i.Route.Get(c, k.ref)
	if r == nil {
		return nil
	}
	b := i.guardBuilder(c, k.at.Port)
	out := make([]placedRule, 0, len(r.Rules))
	for n := range r.Rules {
		rule := i.withSessions(c, &r.Rules[n])
		if k.at.Port != (model.ServicePort{}) {
			rule = b.rule(rule)
		}
		out = append(out, placedRule{rule, rank(rule.Match)})
	}
	return out
}

// orderedRules are those of the routes of one namespace, which come in order of precedence.
func (i *Ingest) orderedRules(c *memo.Ctx, routes []model.ObjectRef, at model.Attachment) []*model.Rule {
	all := make([]placedRule, 0, len(routes))
	for _, ref := range routes {
		all = append(all, i.rulesOf.Get(c, routeAt{ref, at})...)
	}
	return ordered(all)
}

// ordered has the more specific match first. Equal ones keep the order of their routes (oldest first, then by name) and
// of their rules.
func ordered(rules []placedRule) []*model.Rule {
	places := make([]int, len(rules))
	for n := range places {
		places[n] = n
	}
	slices.SortFunc(places, func(a, b int) int {
		return cmp.Or(cmp.Compare(rules[b].rank, rules[a].rank), cmp.Compare(a, b))
	})
	out := make([]*model.Rule, 0, len(rules)) // not nil: routes with no rules at all match nothing
	for _, n := range places {
		out = append(out, rules[n].Rule)
	}
	return out
}

// rank of a match among those of a table: the more specific one has the higher. HTTPRouteRule.matches and
// GRPCRouteRule.matches of the Gateway API say what is compared, in this order; none of it is as large there as it may
// be here.
func rank(m model.Match) (out uint64) {
	path := 0
	if m.Path != nil {
		path = len(m.Path.Value)
	}
	place := func(n, bits int) { out = out<<bits | uint64(min(n, 1<<bits-1)) } //nolint:gosec // n is no less than zero
	place(pathRank(m.Path), 2)
	place(path, 20)
	place(len(m.GRPCService), 12)
	place(len(m.GRPCMethod), 12)
	place(boolRank(m.Method != ""), 1)
	place(len(m.Headers), 8)
	place(len(m.Query), 8)
	return out
}

func pathRank(p *model.StringMatch) int {
	switch {
	case p == nil:
		return 0
	case p.Type == model.MatchExact:
		return 3
	case p.Type == model.MatchRegex:
		return 2 // between exact and prefix: the API leaves it to the implementation
	}
	return 1
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}
