// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// policyFact is a policy that bears on what is described.
type policyFact struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Action is ALLOW, DENY or what else it does.
	Action string `json:"action"`
	Level  string `json:"level,omitempty"`
	// DryRun: it is only tried.
	DryRun bool `json:"dryRun,omitempty"`
	// Rules in words; values of headers are left out.
	Rules []string `json:"rules,omitempty"`
}

// policiesOf are the policies of guards, each once, in the order in which they decide.
func policiesOf(guards ...model.Guard) []policyFact {
	out := []policyFact{}
	add := func(f policyFact) {
		if !slices.ContainsFunc(out, func(o policyFact) bool {
			return o.Kind == f.Kind && o.Name == f.Name && o.Level == f.Level && slices.Equal(o.Rules, f.Rules)
		}) {
			out = append(out, f)
		}
	}
	for _, g := range guards {
		for _, name := range g.Authentication {
			add(policyFact{
				Kind: "AuthenticationPolicy", Name: name.String(), Action: "AUTHENTICATE", Level: model.LevelApplication,
				Rules: []string{"requests must satisfy it"},
			})
		}
		for _, l := range g.Levels() {
			for _, p := range l.Policies {
				add(accessFact(p, l.Name))
			}
		}
	}
	return out
}

func accessFact(p model.AccessPolicy, level string) policyFact {
	f := policyFact{Kind: "AuthorizationPolicy", Name: p.Name.String(), Action: "ALLOW", Level: level, DryRun: p.DryRun}
	if p.Deny {
		f.Action = "DENY"
	}
	for _, r := range p.Rules {
		if p.Deny && r.Name == model.RuleAuthentication {
			f.Kind = "AuthenticationPolicy"
		}
		f.Rules = append(f.Rules, fmt.Sprintf("%s: %s", r.Label(), ruleInWords(r, p.Ports)))
	}
	if len(f.Rules) == 0 {
		f.Rules = []string{"no rule, so it matches nobody"}
	}
	return f
}

// ruleInWords says whom and what a rule matches.
func ruleInWords(r model.AccessRule, ports []uint16) string {
	who := "anybody"
	if r.Sources != nil {
		var all []string
		for _, s := range r.Sources {
			all = append(all, sourceInWords(s))
		}
		if who = strings.Join(all, ", "); who == "" {
			who = "nobody"
		}
	}
	if len(r.Ports) > 0 {
		ports = r.Ports
	}
	if len(ports) > 0 {
		who += " at " + portsInWords(ports)
	}
	if r.Request != nil {
		who += ", " + requestInWords(*r.Request)
	}
	return who
}

func portsInWords(ports []uint16) string {
	all := make([]string, 0, len(ports))
	for _, p := range ports {
		all = append(all, fmt.Sprint(p))
	}
	if len(all) == 1 {
		return "port " + all[0]
	}
	return "ports " + strings.Join(all, ", ")
}

// sourceInWords is a SPIFFE ID by what it stands for in Kubernetes, where it does.
func sourceInWords(s model.AccessSource) string {
	if !s.Prefix {
		if _, namespace, account, ok := names.ParseSPIFFEID(s.Identity); ok {
			return "ServiceAccount " + namespace + "/" + account
		}
		return s.Identity
	}
	// One that ends in a name has no such prefix.
	if _, namespace, account, ok := names.ParseSPIFFEID(s.Identity + "any"); ok && account == "any" {
		return "namespace " + namespace
	}
	return "identities that begin with " + s.Identity
}

func requestInWords(r model.AccessRequest) string {
	var out []string
	add := func(what string, all ...string) {
		if len(all) > 0 {
			out = append(out, strings.TrimSpace(what+" "+strings.Join(all, ", ")))
		}
	}
	add("", r.Methods...)
	for _, p := range r.Paths {
		add("path", matchInWords(p))
	}
	add("host", r.Hosts...)
	for _, h := range r.Headers { // what it must be may be a secret
		add("header", h.Name)
	}
	for _, g := range r.GRPC {
		add("gRPC", strings.TrimSuffix(g.Service+"/"+g.Method, "/"))
	}
	for _, c := range r.Claims {
		add("claim", c.Name)
	}
	if r.CEL != "" {
		out = append(out, "a CEL expression")
	}
	return strings.Join(out, "; ")
}

func matchInWords(m model.StringMatch) string {
	switch m.Type {
	case model.MatchPrefix:
		return strings.TrimSuffix(m.Value, "/") + "/..."
	case model.MatchRegex:
		return "~" + m.Value
	case model.MatchExact:
	}
	return m.Value
}

func drawPolicies(t *table, all []policyFact) {
	var rows [][]string
	for _, p := range all {
		action := p.Action
		if p.DryRun {
			action += " (dry run)"
		}
		for n, r := range p.Rules {
			row := []string{p.Kind + " " + p.Name, action, dash(p.Level), oneLine(r)}
			if n > 0 {
				row[0], row[1], row[2] = "", "", ""
			}
			rows = append(rows, row)
		}
	}
	drawRows(t, []string{"POLICY", "ACTION", "LEVEL", "RULES"}, rows)
}
