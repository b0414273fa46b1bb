// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// cost of routes in the tables of a waypoint, and of what they lead to. The backends are ports of Services of other
// namespaces than the waypoint's, each of which has a cluster there for the routes' sake.
type cost struct{ rules, expressions, bytes, backends int }

func (a cost) plus(b cost) cost {
	return cost{a.rules + b.rules, a.expressions + b.expressions, a.bytes + b.bytes, a.backends + b.backends}
}

func (a cost) times(n int) cost {
	return cost{n * a.rules, n * a.expressions, n * a.bytes, n * a.backends}
}

func (a cost) within(most cost) bool {
	return a.rules <= most.rules && a.expressions <= most.expressions && a.bytes <= most.bytes &&
		a.backends <= most.backends
}

// bill is what a route costs, and all that decides whether it gets that.
type bill struct {
	ref     model.ObjectRef
	created time.Time
	// of is what it costs for the Services of each namespace, and all of them together.
	of  map[string]cost
	all cost
	// tried is what the policies cost besides that are only tried on its ways, likewise.
	tried map[string]cost
}

// bill is nil where there is no route.
func (i *Ingest) bill(c *memo.Ctx, ref model.ObjectRef) *bill {
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	b := &bill{ref: r.ref, created: r.created, of: costsOf(r)}
	for _, of := range b.of {
		b.all = b.all.plus(of)
	}
	return b
}

// costsOf a route for the Services of each namespace. Each port of a parent has a table with all of the rules.
func costsOf(r *Route) map[string]cost {
	var once cost
	for _, rule := range r.Rules {
		once = once.plus(cost{rules: 1, expressions: expressions(rule), bytes: bytesOf(rule)}.times(copies(rule)))
	}
	out := map[string]cost{}
	for _, p := range r.parents {
		if len(p.attachments) > 0 {
			out[p.service.Namespace] = out[p.service.Namespace].plus(once.times(len(p.attachments)))
		}
	}
	for owner, of := range out {
		of.backends = backendsOutside(r.Rules, owner)
		out[owner] = of
	}
	return out
}

// backendsOutside are how many ports rules lead to that are none of a namespace's Services.
func backendsOutside(rules []model.Rule, namespace string) int {
	found := map[model.ServicePort]struct{}{}
	for _, port := range ruleBackends(rules) {
		if port.Namespace != namespace {
			found[port] = struct{}{}
		}
	}
	return len(found)
}

// copies of a rule in a table: where sessions stay with one of several backends, there is one for each of these, too.
func copies(r model.Rule) int {
	if s := r.SessionPersistence; s == nil || s.Header || len(r.Backends) < 2 {
		return 1
	}
	return 1 + len(r.Backends)
}

// bytesOf are the bytes that a rule's author wrote and may make as many of as the API lets them: of matches, of changes
// of headers, and of backends, with those that come with each, and with the rule itself.
func bytesOf(r model.Rule) int {
	const itself, backend = 512, 128
	n := itself + bytesOfFilters(r.Filters) + len(r.Match.GRPCService) + len(r.Match.GRPCMethod)
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

// bytesOfAuth is what having an authorization service asked takes in a table, whatever else is said of it.
const bytesOfAuth = 1024

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
		if a := f.ExternalAuth; a != nil {
			n += bytesOfAuth + len(a.Path) + len(strings.Join(slices.Concat(a.Shown, a.Taken), ""))
		}
		if f.Extension != nil {
			n += bytesOfExtension(*f.Extension)
		}
		if f.CORS != nil {
			n += len(strings.Join(slices.Concat(f.CORS.AllowOrigins, f.CORS.AllowMethods, f.CORS.AllowHeaders,
				f.CORS.ExposeHeaders), ""))
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
