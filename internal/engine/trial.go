// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/quarantine"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// A proxy that rejects a route table keeps what it had, or has nothing. So the rules that it rejects it for are found
// and left out: the same proxy is shown parts of the table as a table of its own, which serves nobody, until it is
// known whose fault it is. docs/design/rejections.md says why it is done this way.

// Acknowledgements is what the proxies that are connected to this replica made of their resources; xds.Server is one.
type Acknowledgements interface {
	State(k xds.Key) xds.ResourceState
}

// trial is what the proxies of a scope are shown: some rules of a table.
type trial struct {
	at   model.Attachment
	keys map[string]bool // ingest.RuleKey
}

type trialInput struct{ scope xds.Scope }

// isolation is what goes on in one scope. There is one search at a time.
type isolation struct {
	suspects map[string]bool // tables that a proxy rejects
	table    string          // the one under search
	search   *quarantine.Search
	again    bool // the search has begun anew, with no trust in what was accepted
	shown    int  // trials
}

// maxShown is how many trials a search may take before the callers' namespaces that have rules of which nothing good is
// known yet are closed until its end. Otherwise somebody who edits a bad rule faster than it can be tried would keep
// the owner's edits from being served.
const maxShown = 100

// rejected takes a table for suspect that a proxy rejected. It may have changed since then, and is suspect all the
// same: somebody may change it without end.
func (e *Engine) rejected(a xds.Ack) {
	if _, ok := parseTable(a.Name); ok && e.givenUp[a.Name] != a.Version {
		e.suspect(a.Proxy.Scope, a.Name)
	}
}

func (e *Engine) suspect(scope xds.Scope, table string) {
	if e.isolations[scope] == nil {
		e.isolations[scope] = &isolation{suspects: map[string]bool{}}
	}
	e.isolations[scope].suspects[table] = true
}

func (e *Engine) reject(r ingest.Rejection) {
	if e.ingest.Rejected.Add(r) {
		e.opts.OnRejection(r)
	}
}

// isolate goes on with the searches as far as the proxies have answered. It runs when all that changed has been
// flushed, and tells whether there is something to flush again.
func (e *Engine) isolate() (changed bool) {
	for k := range e.answered {
		delete(e.answered, k)
		if k.Name != names.RouteTrial {
			e.look(k)
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(e.isolations)) {
		changed = e.step(scope, e.isolations[scope]) || changed
	}
	return changed
}

// look remembers what all proxies take of a table: a later edit is to blame first.
func (e *Engine) look(k xds.Key) {
	st := e.opts.Acks.State(k)
	at, ok := parseTable(k.Name)
	switch {
	case !ok:
	case st.Version == "":
		e.unlearn(k)
	case st.Rejection() == "":
		delete(e.givenUp, k.Name)
		if st.Settled() && len(st.Proxies) > 0 && e.resources.closed[k.Name] == nil {
			e.accepted[k.Name] = e.ingest.Table.Get(nil, at)
		}
	}
}

// unlearn forgets what proxies said of a table that no proxy has any more.
func (e *Engine) unlearn(k xds.Key) {
	if k.TypeURL == xds.TypeRoute {
		delete(e.accepted, k.Name)
		delete(e.givenUp, k.Name)
	}
}

// step takes in a verdict, if there is one, and shows the proxies what comes next.
func (e *Engine) step(scope xds.Scope, i *isolation) (changed bool) {
	if i.search == nil && !e.begin(i) {
		delete(e.isolations, scope)
		return e.show(scope, nil)
	}
	st := e.opts.Acks.State(scope.Key(xds.TypeRoute, i.table))
	judges := map[string]bool{}
	for _, a := range st.Proxies {
		if a.State != xds.Acked {
			judges[a.Proxy.ID()] = true
		}
	}
	if len(judges) == 0 { // all take it, or all are gone
		opened := e.reopen(i.table)
		i.end()
		return e.step(scope, i) || opened
	}
	at, _ := parseTable(i.table)
	items := itemsOf(e.ingest.Table.Get(nil, at))
	keys, more := i.search.Advance(items)
	if !more {
		if st.Rejection() == "" {
			return false // it is on its way without the culprits
		}
		e.fail(i, st)
		return e.step(scope, i)
	}
	if e.show(scope, &trial{at, keys}) {
		if i.shown++; i.shown == maxShown {
			e.close(i, at)
		}
		return true
	}
	answered, text := verdict(e.opts.Acks.State(scope.Key(xds.TypeRoute, names.RouteTrial)), judges)
	if !answered {
		return false
	}
	for _, culprit := range i.search.Verdict(items, text == "") {
		e.blame(i.table, at, culprit.Key, text)
	}
	return true
}

// begin takes up the next search of a scope; ok is false if there is none.
func (e *Engine) begin(i *isolation) (ok bool) {
	if len(i.suspects) == 0 {
		return false
	}
	name := slices.Min(slices.Collect(maps.Keys(i.suspects)))
	delete(i.suspects, name)
	trusted := map[string]bool{}
	for _, it := range itemsOf(e.accepted[name]) {
		trusted[it.Key] = true
	}
	i.table, i.search = name, quarantine.New(trusted)
	return true
}

func (i *isolation) end() { *i = isolation{suspects: i.suspects} }

// fail ends a search that found nobody else to blame, and yet the table is rejected. It begins anew once: an agent
// whose Envoy was away for a moment accepts in its name.
func (e *Engine) fail(i *isolation, st xds.ResourceState) {
	if !i.again {
		i.search, i.again = quarantine.New(nil), true
		return
	}
	e.opts.Log.Info("a route table is rejected, but none of its rules is the cause", "table", i.table, "error",
		st.Rejection())
	e.givenUp[i.table] = st.Version
	e.reopen(i.table)
	i.end()
}

type closedInput struct{ table string }

// close has a table answer an error to the callers of all namespaces that have rules which the proxies have yet to try.
func (e *Engine) close(i *isolation, at model.Attachment) {
	closed := map[string]bool{}
	for _, c := range e.ingest.Table.Get(nil, at).Callers {
		if slices.ContainsFunc(c.Rules, func(r *model.Rule) bool { return !i.search.Good(ingest.RuleKey(*r)) }) {
			closed[c.Namespace] = true
		}
	}
	e.opts.Log.Info("rules of a rejected route table change faster than they can be tried; until then, their namespaces "+
		"are closed",
		"table", i.table, "namespaces", slices.Sorted(maps.Keys(closed)))
	e.resources.closed[i.table] = closed
	e.graph.Touch(closedInput{i.table})
}

// reopen ends that, and tells whether it was so.
func (e *Engine) reopen(table string) bool {
	if e.resources.closed[table] == nil {
		return false
	}
	delete(e.resources.closed, table)
	e.graph.Touch(closedInput{table})
	return true
}

// show sets what the proxies of a scope are shown, and tells whether that is something else than before.
func (e *Engine) show(scope xds.Scope, t *trial) (changed bool) {
	old := e.resources.trials[scope]
	if old == t || old != nil && t != nil && old.at == t.at && maps.Equal(old.keys, t.keys) {
		return false
	}
	if t == nil {
		delete(e.resources.trials, scope)
	} else {
		e.resources.trials[scope] = t
	}
	e.graph.Touch(trialInput{scope})
	return true
}

// maxText bounds what is kept of a proxy's words.
const maxText = 1024

// blame leaves a rule out from now on, in every table.
func (e *Engine) blame(table string, at model.Attachment, key, text string) {
	for rule := range rulesOf(e.ingest.Table.Get(nil, at)) {
		if ingest.RuleKey(*rule) == key {
			e.opts.Log.Info("proxies reject a rule; it is left out", "table", table, "kind", rule.Source.Kind,
				"namespace", rule.Source.Namespace, "name", rule.Source.Name, "rule", rule.RuleIndex, "error", text)
			e.reject(ingest.Rejection{Route: rule.Source, Rule: key, Text: strings.ToValidUTF8(text[:min(len(text), maxText)],
				"")})
			return
		}
	}
}

// verdict is that of the judges on the trial; text is the words of one that rejects it. A judge that does not know it
// yet is waited for.
func verdict(st xds.ResourceState, judges map[string]bool) (answered bool, text string) {
	acked := 0
	for _, a := range st.Proxies {
		switch {
		case !judges[a.Proxy.ID()]:
		case a.State == xds.Rejected:
			return true, a.Error
		case a.State == xds.Acked:
			acked++
		}
	}
	return acked == len(judges), ""
}

func rulesOf(t *model.RouteTable) func(yield func(*model.Rule) bool) {
	return func(yield func(*model.Rule) bool) {
		if t == nil {
			return
		}
		for _, c := range t.Callers {
			for _, r := range c.Rules {
				if !yield(r) {
					return
				}
			}
		}
		for _, r := range t.Default {
			if !yield(r) {
				return
			}
		}
	}
}

func itemsOf(t *model.RouteTable) (items []quarantine.Item) {
	for rule := range rulesOf(t) {
		src := rule.Source
		items = append(items, quarantine.Item{Key: ingest.RuleKey(*rule), Group: src.Kind + "/" + src.Namespace + "/" +
			src.Name})
	}
	return items
}

// trialRoutes is the table that a scope's proxies are shown, if any.
func (r *resources) trialRoutes(c *memo.Ctx, k xds.Key) *xds.Resource {
	c.Read(trialInput{k.Scope})
	trustDomain := r.ingest.Settings.Get(c, struct{}{}).TrustDomain
	table := model.RouteTable{Default: []*model.Rule{}}
	if t := r.trials[k.Scope]; t != nil {
		only := func(rules []*model.Rule) []*model.Rule {
			return slices.DeleteFunc(slices.Clone(rules), func(rule *model.Rule) bool { return !t.keys[ingest.RuleKey(*rule)] })
		}
		whole := r.ingest.Table.Get(c, t.at)
		table.Attachment, table.Protocol = whole.Attachment, whole.Protocol
		table.Default = append(table.Default, only(whole.Default)...)
		for _, caller := range whole.Callers {
			table.Callers = append(table.Callers, model.CallerRules{Namespace: caller.Namespace, Rules: only(caller.Rules)})
		}
	}
	return r.resource(k, route.Trial(trustDomain, table))
}
