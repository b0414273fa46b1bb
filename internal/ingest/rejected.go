// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// maxRejected bounds what is kept: the latest. What is lost is found anew if it still matters.
const maxRejected = 10_000

// Rejected are the rules that proxies reject, found by trial. It is an input like the objects of the cluster: what a
// rule means depends on it, and nothing else does. What was found about a rule stays when the rule goes, for it may
// come back, and replicas that learn of both in another order must end up with the same.
type Rejected struct {
	graph *memo.Graph
	of    map[model.ObjectRef]map[string]string // by route and RuleKey: the proxy's words
	order []Rejection                           // without the text, the oldest first
}

type rejectedInput struct{ route model.ObjectRef }

// Rejection is one finding. It says the same on every replica.
type Rejection struct {
	Route model.ObjectRef `json:"route"`
	// Rule is a RuleKey: an edit of the rule makes it another one.
	Rule string `json:"rule"`
	// Text is the proxy's own.
	Text string `json:"text"`
}

// RuleKey tells rules apart by all that they are, but for the guards of what they lead to: these are others' to say.
// Rules of another release are others: it may make something else of them, or have another Envoy.
func RuleKey(r model.Rule) string {
	r.Backends = slices.Clone(r.Backends)
	for n := range r.Backends {
		r.Backends[n].Guards = nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return "" // a Rule is plain data
	}
	sum := sha256.Sum256(append(text, names.Version+names.EnvoyImage...))
	return hex.EncodeToString(sum[:12])
}

// Add takes in a finding, and tells whether it is new.
func (r *Rejected) Add(f Rejection) bool {
	if _, known := r.of[f.Route][f.Rule]; known {
		return false
	}
	if len(r.order) >= maxRejected {
		oldest := r.order[0]
		r.order = r.order[1:]
		if delete(r.of[oldest.Route], oldest.Rule); len(r.of[oldest.Route]) == 0 {
			delete(r.of, oldest.Route)
		}
		r.graph.Touch(rejectedInput{oldest.Route})
	}
	if r.of[f.Route] == nil {
		r.of[f.Route] = map[string]string{}
	}
	r.of[f.Route][f.Rule] = f.Text
	r.order = append(r.order, Rejection{Route: f.Route, Rule: f.Rule})
	r.graph.Touch(rejectedInput{f.Route})
	return true
}

// All lists what is known, in no order.
func (r *Rejected) All() (out []Rejection) {
	for route, rules := range r.of {
		for key, text := range rules {
			out = append(out, Rejection{Route: route, Rule: key, Text: text})
		}
	}
	return out
}

// shutDown refuses what is left of a route that had to lose a match: requests that it would have taken, and perhaps
// refused, must not come by another rule of the route.
func (b *routeBuilder) shutDown() {
	var more ruleErrors // said already, or of no use to anybody
	b.route.Rules = b.refuse(b.route.Rules, &more)
	b.broken = append(b.broken, "the other rules return errors too, because they must not serve the requests of the "+
		"rejected match")
}

// check is Ingest.check of what is left to check of the rule, and whether proxies reject the rule. One that is nothing
// but its match is rejected for its match.
func (b *routeBuilder) check(rule, left model.Rule) (badMatch bool, err error) {
	if badMatch, err = b.i.check(left); err != nil {
		return badMatch, err
	}
	b.c.Read(rejectedInput{rule.Source})
	found := b.i.Rejected.of[rule.Source]
	if len(found) == 0 {
		return false, nil
	}
	text, rejected := found[RuleKey(rule)]
	if !rejected {
		return false, nil
	}
	b.reason = v1alpha1.EntryReasonProxyRejected
	b.shut = b.shut || rule.Invalid
	return rule.Invalid, fmt.Errorf("proxies reject it: %s", b.rejectExtensions(rule, text))
}

// rejectedExtension is that of a rule that proxies reject. Blamed: it is rejected for the module, as text says.
type rejectedExtension struct {
	text   string
	blamed bool
}

// rejectExtensions notes that the extensions of a rule aren't run, and returns what to say of the rule.
func (b *routeBuilder) rejectExtensions(rule model.Rule, text string) string {
	all := rule.Extensions()
	blamed := slices.IndexFunc(all, func(e model.Extension) bool {
		return e.Wasm != nil && namesModule(text, rule.Source.Namespace+"/"+e.Name)
	})
	if blamed >= 0 {
		text = fmt.Sprintf("HTTPExtension %s: the module fails at its start, or refuses its configuration "+
			"(spec.wasm.config); what it says is in the log of the waypoint, container envoy (%s)", all[blamed].Name, text)
	}
	if b.route.rejected == nil && len(all) > 0 {
		b.route.rejected = map[string]rejectedExtension{}
	}
	for _, e := range all {
		if !b.route.rejected[e.Name].blamed {
			b.route.rejected[e.Name] = rejectedExtension{text, blamed >= 0 && e.Name == all[blamed].Name}
		}
	}
	return text
}

// namesModule tells whether a proxy says that it could not make a module of a name.
func namesModule(text, name string) bool {
	return strings.HasSuffix(text, "Unable to create Wasm plugin "+name)
}
