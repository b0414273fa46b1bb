// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/model"
)

func (b *routeBuilder) httpRules(r *gwv1.HTTPRoute) {
	b.rules = len(r.Spec.Rules)
	for n, rule := range r.Spec.Rules {
		base := model.Rule{Source: b.route.Ref, RuleIndex: n}
		if rule.Name != nil {
			base.RuleName = string(*rule.Name)
		}
		matches, err := httpMatches(rule.Matches)
		if err == nil {
			err = b.httpRule(&base, rule)
		}
		b.add(base, matches, err)
	}
}

// add flattens a rule. One that can't be understood still takes its requests (and answers 500), unless it is the matches
// that can't be: to skip a filter would be to let through what it should have changed.
func (b *routeBuilder) add(base model.Rule, matches []model.Match, err error) {
	if err != nil {
		b.broken = append(b.broken, fmt.Sprintf("rule %s: %v", ruleLabel(base), err))
		if errors.Is(err, errIncompatible) {
			b.reason = gwv1.RouteReasonIncompatibleFilters
		}
		base.Filters, base.Backends = nil, nil
	}
	for _, m := range matches {
		flat := base
		flat.Match = m
		b.route.Rules = append(b.route.Rules, flat)
	}
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
		backend := b.backend(ref.BackendObjectReference, ref.Weight)
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
	if out.Retry, err = retry(rule.Retry); err != nil {
		return err
	}
	out.SessionPersistence, err = sessionPersistence(rule.SessionPersistence)
	return err
}

func httpMatches(in []gwv1.HTTPRouteMatch) ([]model.Match, error) {
	if len(in) == 0 {
		return []model.Match{{Path: &model.StringMatch{Type: model.MatchPrefix, Value: "/"}}}, nil
	}
	var out []model.Match
	for n, m := range in {
		match, err := httpMatch(m)
		if err != nil {
			return nil, fmt.Errorf("match %d: %w", n, err)
		}
		out = append(out, match)
	}
	return out, nil
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
		if _, err := regexp.Compile(value); err != nil {
			return nil, fmt.Errorf("%q is not a regular expression in RE2 syntax: %w", value, err)
		}
		return &model.StringMatch{Type: model.MatchRegex, Value: value}, nil
	}
	return nil, fmt.Errorf("match type %q is not supported", typ)
}

func (b *routeBuilder) grpcRules(r *gwv1.GRPCRoute) {
	b.rules = len(r.Spec.Rules)
	for n, rule := range r.Spec.Rules {
		base := model.Rule{Source: b.route.Ref, RuleIndex: n, GRPC: true}
		if rule.Name != nil {
			base.RuleName = string(*rule.Name)
		}
		matches, err := grpcMatches(rule.Matches)
		if err == nil {
			err = b.grpcRule(&base, rule)
		}
		b.add(base, matches, err)
	}
}

func (b *routeBuilder) grpcRule(out *model.Rule, rule gwv1.GRPCRouteRule) error {
	var err error
	if out.Filters, err = b.grpcFilters(rule.Filters); err != nil {
		return err
	}
	for _, ref := range rule.BackendRefs {
		backend := b.backend(ref.BackendObjectReference, ref.Weight)
		if backend.Filters, err = b.grpcFilters(ref.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		if err := checkBackendFilters(backend.Filters); err != nil {
			return fmt.Errorf("backend %s: %w", ref.Name, err)
		}
		out.Backends = append(out.Backends, backend)
	}
	out.SessionPersistence, err = sessionPersistence(rule.SessionPersistence)
	return err
}

func grpcMatches(in []gwv1.GRPCRouteMatch) ([]model.Match, error) {
	if len(in) == 0 {
		return []model.Match{{}}, nil
	}
	var out []model.Match
	for n, m := range in {
		match := model.Match{}
		if m.Method != nil {
			sm, err := stringMatch(deref(m.Method.Type), "")
			if err != nil {
				return nil, fmt.Errorf("match %d: method: %w", n, err)
			}
			match.GRPCType, match.GRPCService, match.GRPCMethod = sm.Type, deref(m.Method.Service), deref(m.Method.Method)
			if sm.Type == model.MatchRegex {
				for _, re := range []string{match.GRPCService, match.GRPCMethod} {
					if _, err := stringMatch(string(gwv1.HeaderMatchRegularExpression), re); err != nil {
						return nil, fmt.Errorf("match %d: method: %w", n, err)
					}
				}
			}
		}
		for _, h := range m.Headers {
			sm, err := stringMatch(deref(h.Type), h.Value)
			if err != nil {
				return nil, fmt.Errorf("match %d: header %s: %w", n, h.Name, err)
			}
			match.Headers = addMatch(match.Headers, strings.ToLower(string(h.Name)), *sm)
		}
		out = append(out, match)
	}
	return out, nil
}

// duration reads a GEP-2257 duration, which Go's parser understands; the CRD has checked its form.
func duration(d *gwv1.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func retry(in *gwv1.HTTPRouteRetry) (*model.Retry, error) {
	if in == nil {
		return nil, nil
	}
	out := &model.Retry{Attempts: 1}
	for _, c := range in.Codes {
		out.Codes = append(out.Codes, uint32(max(c, 0))) //nolint:gosec // not negative
	}
	if in.Attempts != nil {
		if *in.Attempts <= 0 {
			return nil, nil
		}
		out.Attempts = *in.Attempts
	}
	backoff, err := duration(in.Backoff)
	if err != nil {
		return nil, fmt.Errorf("retry.backoff: %w", err)
	}
	if backoff != nil {
		out.Backoff = *backoff
	}
	return out, nil
}

func sessionPersistence(in *gwv1.SessionPersistence) (*model.SessionPersistence, error) {
	if in == nil {
		return nil, nil
	}
	out := &model.SessionPersistence{Name: "fairway-session"}
	if in.SessionName != nil {
		out.Name = *in.SessionName
	}
	out.Header = in.Type != nil && *in.Type == gwv1.HeaderBasedSessionPersistence
	absolute, err := duration(in.AbsoluteTimeout)
	if err != nil {
		return nil, fmt.Errorf("sessionPersistence.absoluteTimeout: %w", err)
	}
	if absolute != nil {
		out.AbsoluteTimeout = *absolute
	}
	return out, nil
}
