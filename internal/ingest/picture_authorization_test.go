// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// This file writes down who may come in: a line for each rule of each guard.

func (w *world) accessPolicies() []cluster.Key { return keysOf[*v1alpha1.AuthorizationPolicy](w) }

// podGuards are those of all pods, equal ones once.
func (p *picture) podGuards() {
	policies := len(p.accessPolicies()) + len(keysOf[*v1alpha1.AuthenticationPolicy](p.world))
	if policies == 0 && !p.in.Settings.Get(nil, struct{}{}).defaultDeny {
		return
	}
	p.line("")
	var texts []string
	of := map[string][]string{}
	for _, key := range keysOf[*corev1.Pod](p.world) {
		text := p.podGuard(p.in.PodGuard.Get(nil, key))
		if of[text] == nil {
			texts = append(texts, text)
		}
		of[text] = append(of[text], key.String())
	}
	for _, text := range texts {
		p.line("pod %s: %s", strings.Join(of[text], ", "), text)
	}
}

func (p *picture) podGuard(g *model.PodGuard) string {
	if g == nil {
		return "not guarded"
	}
	out := p.guard(g.Guard, "  ")
	for _, w := range g.Waypoints {
		out += fmt.Sprintf("\n  port %d lets in waypoint %s", w.Port, p.identity(w.Waypoint))
	}
	if len(g.Only) > 0 {
		out += fmt.Sprintf("\n  ports %v let in only waypoints", g.Only)
	}
	if out == "" {
		return "open"
	}
	return strings.TrimPrefix(out, "\n")[len("  "):]
}

// guards of requests or connections, with a line between two of them.
func (p *picture) guards(in []model.Guard, indent string) (out string) {
	for n, g := range in {
		if n > 0 {
			out += "\n" + indent + "and"
		}
		out += p.guard(g, indent)
	}
	return out
}

func (p *picture) guard(g model.Guard, indent string) (out string) {
	if g.DefaultDeny {
		out += "\n" + indent + "by default nobody"
	}
	for _, policy := range g.Network {
		out += p.accessPolicy(policy, "", indent)
	}
	for _, policy := range g.Application {
		out += p.accessPolicy(policy, "requests: ", indent)
	}
	if len(g.Authentication) > 0 {
		out += fmt.Sprintf("\n%srequests: authenticated as %s has it", indent, keyList(g.Authentication))
	}
	for _, a := range g.Asked {
		out += fmt.Sprintf("\n%srequests: %s", indent, authWords(&a))
	}
	return out
}

func (p *picture) accessPolicy(a model.AccessPolicy, level, indent string) (out string) {
	action := "allow"
	if a.Deny {
		action = "deny"
	}
	if a.DryRun {
		action = "try to " + action
	}
	if a.Ports != nil {
		action = fmt.Sprintf("at ports %v %s", a.Ports, action)
	}
	prefix := fmt.Sprintf("\n%s%s%s %s", indent, level, a.Name, action)
	if len(a.Rules) == 0 {
		return prefix + " nothing"
	}
	for _, r := range a.Rules {
		out += fmt.Sprintf("%s %s: %s", prefix, accessRuleLabel(r.Index, r.Name), p.accessRule(r))
	}
	return out
}

func (p *picture) accessRule(r model.AccessRule) string {
	out := "everybody"
	if r.Sources != nil {
		var from []string
		for _, s := range r.Sources {
			if s.Prefix {
				s.Identity = p.identity(s.Identity + "all")
			}
			from = append(from, p.identity(s.Identity))
		}
		out = strings.Join(from, ", ")
	}
	if r.Ports != nil {
		out += fmt.Sprintf(" at %v", r.Ports)
	}
	if r.Request != nil {
		out += " with " + requestWords(*r.Request)
	}
	return out
}

func requestWords(r model.AccessRequest) string {
	var out []string
	for _, of := range []struct {
		name string
		any  []string
	}{{"method", r.Methods}, {"host", r.Hosts}} {
		if of.any != nil {
			out = append(out, of.name+" "+strings.Join(of.any, " or "))
		}
	}
	var paths []string
	for _, p := range r.Paths {
		paths = append(paths, comparison(p))
	}
	if paths != nil {
		out = append(out, "path "+strings.Join(paths, " or "))
	}
	for _, h := range r.Headers {
		text := "header " + word(h.Name)
		if h.Value != nil {
			text += " " + comparison(*h.Value)
		}
		out = append(out, text)
	}
	var calls []string
	for _, g := range r.GRPC {
		calls = append(calls, g.Service+"/"+g.Method)
	}
	if calls != nil {
		out = append(out, "call "+strings.Join(calls, " or "))
	}
	for _, c := range r.Claims {
		out = append(out, "claim "+word(c.Name)+" "+strings.Join(c.Values, " or "))
	}
	if r.CEL != "" {
		out = append(out, "CEL "+r.CEL)
	}
	return strings.Join(out, " and ")
}

// tableGuards of requests, where there are some.
func (p *picture) tableGuards(t *model.RouteTable) (out string) {
	if len(t.Guards) > 0 {
		out = "\n    let in, of requests to itself:" + p.guards(t.Guards, "      ")
	}
	rules := t.Default
	for _, c := range t.Callers {
		rules = append(rules[:len(rules):len(rules)], c.Rules...)
	}
	for _, r := range rules {
		for _, b := range r.Backends {
			if len(b.Guards) > 0 {
				to := portWords(b.Port)
				if b.External != nil {
					to = b.External.Name.String() + " outside"
				}
				out += fmt.Sprintf("\n    let in, of %s %s/%s rule %s to %s:%s", r.Source.Kind, r.Source.Namespace, r.Source.Name,
					ruleLabel(*r), to, p.guards(b.Guards, "      "))
			}
		}
	}
	return out
}

// enforcement is who must have acknowledged a policy.
func (p *picture) enforcement(e Enforcement) {
	p.line("    Enforced%s", flags(map[string]bool{
		"on requests": e.Application, "denies": e.Deny, "only tried": e.DryRun, e.Means: e.Means != "",
	}))
	if m := e.Modes; m != nil {
		p.line("      modes of %d pods on %d nodes, %d done, %d otherwise, late %s on %q, not captured [%s]", m.Pods, m.Nodes,
			m.Done, m.Overridden, m.Late.Pod, m.Late.Node, keyList(m.Uncaptured))
	}
	if e.Pods != nil {
		var at []string
		for _, g := range e.Pods.Captured {
			at = append(at, g.Pod.String()+" on "+g.Node)
		}
		p.line("      for %s: [%s], not captured [%s]", e.Pods.Name, strings.Join(at, ", "), keyList(e.Pods.Uncaptured))
	}
	for _, w := range e.Waypoints {
		p.line("      by waypoint %s, tables [%s]%s", w.Gateway, portList(w.Tables), flags(map[string]bool{
			"TCP": w.TCP, "authentication": w.Authentication, "not yet": w.Pending,
		}))
	}
	for _, k := range e.Keys {
		p.line("      provider %s by keys of %s", k.Provider, portWords(k.Server))
	}
	for _, at := range e.Closed {
		state := "closed"
		if at.Open {
			state = "not tried"
		}
		p.line("      %s %s, %s: %s", state, portWords(at.Port), at.Reason, at.Message)
	}
}

func keyList(keys []cluster.Key) string {
	var out []string
	for _, k := range keys {
		out = append(out, k.String())
	}
	return strings.Join(out, ", ")
}

// authentications are what a waypoint's tables ask for.
func (p *picture) authentications(a *model.Authentications) {
	for _, set := range a.Sets {
		p.line("  authenticates by %s", keyList(set))
	}
	for _, policy := range a.Policies {
		p.line("  %s: %s", policy.Policy, authenticationWords(policy))
	}
}

func authenticationWords(a model.Authentication) (out string) {
	switch {
	case a.Invalid:
		return "nobody can"
	case a.Tokens == nil:
		return "nothing"
	case a.Tokens.Optional:
		out = "a token, if any, "
	default:
		out = "a token "
	}
	var providers []string
	for _, t := range a.Tokens.Providers {
		text := fmt.Sprintf("%s of %s for %v in %v %v %v", t.Name, t.Issuer, t.Audiences, t.Headers, t.Params, t.Cookies)
		if t.Remote != nil {
			text += fmt.Sprintf(" with keys of %s%s (%s), every %s in %s", portWords(t.Remote.Service), inTLS(t.Remote.TLS),
				t.Remote.URI, t.Remote.CacheFor, t.Remote.Timeout)
		}
		if t.Claims != nil {
			text += fmt.Sprintf(" as %v", t.Claims)
		}
		providers = append(providers, text+flags(map[string]bool{
			"forwarded": t.Forward, "without keys": t.Keys == "" && t.Remote == nil,
		}))
	}
	return out + strings.Join(providers, " or ")
}
