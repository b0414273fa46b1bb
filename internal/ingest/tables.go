// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// table puts together what every route does with requests to one port, in order of precedence.
func (i *Ingest) table(c *memo.Ctx, port model.ServicePort) *model.RouteTable {
	out := &model.RouteTable{Port: port, Protocol: model.ProtocolUndeclared}
	svc := i.Service.Get(c, port.ServiceName())
	if svc == nil {
		return out
	}
	if p, ok := svc.Port(port.Port); ok {
		out.Protocol = p.Protocol
	}
	var routes []*Route
	for _, ref := range i.routesOf(c, port.ServiceName()) {
		if r := i.Route.Get(c, ref); r != nil && r.attachesToPort(port) {
			routes = append(routes, r)
		}
	}
	if len(routes) == 0 {
		return out
	}
	if slices.ContainsFunc(routes, func(r *Route) bool { return r.Ref.Kind == KindGRPCRoute }) {
		out.Protocol = model.ProtocolHTTP2
	} else if out.Protocol == model.ProtocolTCP {
		out.Protocol = model.ProtocolHTTP
	}
	slices.SortFunc(routes, compareRoutes)
	byNamespace := map[string][]*Route{}
	for _, r := range routes {
		byNamespace[r.Ref.Namespace] = append(byNamespace[r.Ref.Namespace], r)
	}
	for ns, routes := range byNamespace {
		rules := orderedRules(routes)
		if ns == port.Namespace {
			out.Default = rules
		} else {
			out.Callers = append(out.Callers, model.CallerRules{Namespace: ns, Rules: rules})
		}
	}
	slices.SortFunc(out.Callers, func(a, b model.CallerRules) int { return strings.Compare(a.Namespace, b.Namespace) })
	return out
}

// orderedRules flattens the routes of one namespace. Where GRPCRoutes and HTTPRoutes meet on a port, the GRPCRoutes
// have it alone (GEP-1426, "Route types").
func orderedRules(routes []*Route) []model.Rule {
	grpc := slices.ContainsFunc(routes, func(r *Route) bool { return r.Ref.Kind == KindGRPCRoute })
	rules := []model.Rule{} // not nil: routes with no rules at all match nothing
	for _, r := range routes {
		if !grpc || r.Ref.Kind == KindGRPCRoute {
			rules = append(rules, r.Rules...)
		}
	}
	// Stable: equal matches keep the order of their routes (oldest first, then by name) and of their rules.
	slices.SortStableFunc(rules, func(a, b model.Rule) int { return compareMatches(a.Match, b.Match) })
	return rules
}

// compareRoutes orders by age, then by namespace/name, as the Gateway API asks for.
func compareRoutes(a, b *Route) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Ref.Namespace, b.Ref.Namespace),
		cmp.Compare(a.Ref.Name, b.Ref.Name), cmp.Compare(a.Ref.Kind, b.Ref.Kind))
}

// compareMatches puts the more specific match first: HTTPRouteRule.matches and GRPCRouteRule.matches of the Gateway
// API say how.
func compareMatches(a, b model.Match) int {
	return cmp.Or(
		cmp.Compare(pathRank(b.Path), pathRank(a.Path)),
		cmp.Compare(pathLength(b.Path), pathLength(a.Path)),
		cmp.Compare(len(b.GRPCService), len(a.GRPCService)),
		cmp.Compare(len(b.GRPCMethod), len(a.GRPCMethod)),
		cmp.Compare(boolRank(b.Method != ""), boolRank(a.Method != "")),
		cmp.Compare(len(b.Headers), len(a.Headers)),
		cmp.Compare(len(b.Query), len(a.Query)),
	)
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

func pathLength(p *model.StringMatch) int {
	if p == nil {
		return 0
	}
	return len(p.Value)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}
