// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/model"
)

func (b *routeBuilder) httpRules(r *gwv1.HTTPRoute) {
	b.rules = len(r.Spec.Rules)
	for n, rule := range r.Spec.Rules {
		base := model.Rule{Source: b.route.ref, RuleIndex: n}
		if rule.Name != nil {
			base.RuleName = string(*rule.Name)
		}
		matches, bad := understood(rule.Matches, model.Match{Path: &model.StringMatch{Type: model.MatchPrefix, Value: "/"}},
			httpMatch)
		bad.action(b.httpRule(&base, rule))
		b.add(base, matches, bad)
	}
}

// add flattens a rule. One that can't be carried out still takes its requests and answers them with an error: to skip a
// filter would be to let through what it should have changed. Only a match that can't be understood takes none.
func (b *routeBuilder) add(base model.Rule, matches []numbered, bad ruleErrors) {
	if !bad.none() {
		base = refused(base)
	}
	flat := make([]model.Rule, 0, len(matches))
	checked := base
	for _, m := range matches {
		rule := base
		rule.Match, checked.Match = m.Match, m.Match
		if badMatch, err := b.check(rule, checked); badMatch {
			bad.match(fmt.Errorf("match %d: %w", m.n, err))
			continue
		} else if err != nil {
			bad.action(err)
		}
		checked = forMatch(checked)
		flat = append(flat, rule)
	}
	if !bad.none() {
		flat = b.refuse(flat, &bad)
		b.broken = append(b.broken, fmt.Sprintf("Rule %s: %s", ruleLabel(base), bad.message(base.GRPC)))
		if bad.incompatible {
			b.reason = gwv1.RouteReasonIncompatibleFilters
		}
	}
	b.route.Rules = append(b.route.Rules, flat...)
}

// forMatch is what is left of a rule to check for each match, once it was checked for one: what it says for itself may
// be large, and a rule has many matches.
func forMatch(r model.Rule) model.Rule {
	r.Filters = slices.DeleteFunc(slices.Clone(r.Filters), func(f model.Filter) bool {
		return f.Redirect == nil && f.Rewrite == nil
	})
	r.Backends = slices.Clone(r.Backends)
	for n := range r.Backends {
		r.Backends[n].Filters = nil
	}
	return r
}

// refuse leaves nothing of the rules but their matches, and not those that proxies reject even so.
func (b *routeBuilder) refuse(rules []model.Rule, bad *ruleErrors) []model.Rule {
	out := make([]model.Rule, 0, len(rules))
	for _, rule := range rules {
		rule = refused(rule)
		if badMatch, err := b.check(rule, rule); badMatch {
			bad.match(err)
		} else {
			out = append(out, rule)
		}
	}
	return out
}

// numbered is a match with its place in the object.
type numbered struct {
	n int
	model.Match
}

// refused is the rule with nothing left but its place.
func refused(r model.Rule) model.Rule {
	return model.Rule{
		Source: r.Source, RuleName: r.RuleName, RuleIndex: r.RuleIndex, GRPC: r.GRPC, Match: r.Match,
		Invalid: true,
	}
}

// ruleErrors is what is wrong with a rule, each thing once.
type ruleErrors struct {
	matches, actions []string
	incompatible     bool // errIncompatible is among them
}

func (e *ruleErrors) none() bool { return len(e.matches) == 0 && len(e.actions) == 0 }

func (e *ruleErrors) match(err error) { addOnce(&e.matches, err) }

func (e *ruleErrors) action(err error) {
	if err != nil {
		e.incompatible = e.incompatible || errors.Is(err, errIncompatible)
		addOnce(&e.actions, err)
	}
}

func addOnce(list *[]string, err error) {
	if text := err.Error(); !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// message says what is wrong and what becomes of the requests.
func (e *ruleErrors) message(grpc bool) string {
	answer := "500"
	if grpc {
		answer = "UNAVAILABLE"
	}
	actions := slices.DeleteFunc(slices.Clone(e.actions),
		func(text string) bool { return slices.Contains(e.matches, text) })
	out := strings.Join(slices.Concat(e.matches, actions), ", ") + " (requests that match the rule get " + answer
	if len(e.matches) > 0 {
		out += "; an invalid match matches no request"
	}
	return out + ")"
}

func ruleLabel(r model.Rule) string {
	if r.RuleName != "" {
		return fmt.Sprintf("%d (%s)", r.RuleIndex, r.RuleName)
	}
	return fmt.Sprint(r.RuleIndex)
}

func (b *routeBuilder) httpRule(out *model.Rule, rule gwv1.HTTPRouteRule) error {
	var err error
	if out.Filters, err = b.httpFilters(rule.Filters); err != nil {
		return err
	}
	if err := checkFilters(out.Filters, len(rule.BackendRefs)); err != nil {
		return err
	}
	for _, ref := range rule.BackendRefs {
		backend := b.backendOrHost(ref.BackendObjectReference, ref.Weight)
		if backend.Filters, err = b.httpFilters(ref.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		if err := checkBackendFilters(backend.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		out.Backends = append(out.Backends, backend)
	}
	if t := rule.Timeouts; t != nil {
		if out.RequestTimeout, err = duration(t.Request); err != nil {
			return fmt.Errorf("timeouts.request: %w", err)
		}
		if out.BackendTimeout, err = duration(t.BackendRequest); err != nil {
			return fmt.Errorf("timeouts.backendRequest: %w", err)
		}
	}
	if out.Retry, err = b.retry(*out, rule.Retry); err != nil {
		return err
	}
	return b.session(out, rule.SessionPersistence)
}

// understood are the matches of a rule that can be, and what is wrong with the others. A rule without any has the match
// all.
func understood[M any](in []M, all model.Match, read func(M) (model.Match, error)) (out []numbered, bad ruleErrors) {
	if len(in) == 0 {
		return []numbered{{Match: all}}, bad
	}
	for n, m := range in {
		match, err := read(m)
		if err != nil {
			bad.match(fmt.Errorf("match %d: %w", n, err))
			continue
		}
		out = append(out, numbered{n, match})
	}
	return out, bad
}

func httpMatch(m gwv1.HTTPRouteMatch) (out model.Match, err error) {
	out.Path = &model.StringMatch{Type: model.MatchPrefix, Value: "/"}
	if m.Path != nil {
		typ, value := gwv1.PathMatchPathPrefix, "/"
		if m.Path.Type != nil {
			typ = *m.Path.Type
		}
		if m.Path.Value != nil {
			value = *m.Path.Value
		}
		switch typ {
		case gwv1.PathMatchExact:
			out.Path = &model.StringMatch{Type: model.MatchExact, Value: value}
		case gwv1.PathMatchPathPrefix:
			out.Path = &model.StringMatch{Type: model.MatchPrefix, Value: value}
		default:
			if out.Path, err = stringMatch(string(typ), value); err != nil {
				return out, fmt.Errorf("path: %w", err)
			}
		}
	}
	if m.Method != nil {
		out.Method = string(*m.Method)
	}
	for _, h := range m.Headers {
		sm, err := stringMatch(deref(h.Type), h.Value)
		if err != nil {
			return out, fmt.Errorf("header %s: %w", h.Name, err)
		}
		out.Headers = addMatch(out.Headers, strings.ToLower(string(h.Name)), *sm)
	}
	for _, q := range m.QueryParams {
		sm, err := stringMatch(deref(q.Type), q.Value)
		if err != nil {
			return out, fmt.Errorf("query parameter %s: %w", q.Name, err)
		}
		out.Query = addMatch(out.Query, string(q.Name), *sm)
	}
	return out, nil
}

// addMatch keeps the first of several matches of one name, as the API asks for.
func addMatch(in []model.NamedMatch, name string, m model.StringMatch) []model.NamedMatch {
	for _, n := range in {
		if n.Name == name {
			return in
		}
	}
	return append(in, model.NamedMatch{Name: name, StringMatch: m})
}

func deref[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}

func stringMatch(typ, value string) (*model.StringMatch, error) {
	switch typ {
	case "", string(gwv1.HeaderMatchExact):
		return &model.StringMatch{Type: model.MatchExact, Value: value}, nil
	case string(gwv1.HeaderMatchRegularExpression):
		return &model.StringMatch{Type: model.MatchRegex, Value: value}, nil
	}
	return nil, fmt.Errorf("match type %q is not supported", typ)
}

func (b *routeBuilder) grpcRules(r *gwv1.GRPCRoute) {
	b.rules = len(r.Spec.Rules)
	for n, rule := range r.Spec.Rules {
		base := model.Rule{Source: b.route.ref, RuleIndex: n, GRPC: true}
		if rule.Name != nil {
			base.RuleName = string(*rule.Name)
		}
		matches, bad := understood(rule.Matches, model.Match{}, grpcMatch)
		bad.action(b.grpcRule(&base, rule))
		b.add(base, matches, bad)
	}
}

func (b *routeBuilder) grpcRule(out *model.Rule, rule gwv1.GRPCRouteRule) error {
	var err error
	if out.Filters, err = b.grpcFilters(rule.Filters); err != nil {
		return err
	}
	for _, ref := range rule.BackendRefs {
		backend := b.backendOrHost(ref.BackendObjectReference, ref.Weight)
		if backend.Filters, err = b.grpcFilters(ref.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		if err := checkBackendFilters(backend.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		out.Backends = append(out.Backends, backend)
	}
	return b.session(out, rule.SessionPersistence)
}

func grpcMatch(m gwv1.GRPCRouteMatch) (out model.Match, err error) {
	if m.Method != nil {
		sm, err := stringMatch(deref(m.Method.Type), "")
		if err != nil {
			return out, fmt.Errorf("method: %w", err)
		}
		out.GRPCType, out.GRPCService, out.GRPCMethod = sm.Type, deref(m.Method.Service), deref(m.Method.Method)
	}
	for _, h := range m.Headers {
		sm, err := stringMatch(deref(h.Type), h.Value)
		if err != nil {
			return out, fmt.Errorf("header %s: %w", h.Name, err)
		}
		out.Headers = addMatch(out.Headers, strings.ToLower(string(h.Name)), *sm)
	}
	return out, nil
}
