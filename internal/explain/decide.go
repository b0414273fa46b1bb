// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
)

// Caller is who asks, and for what.
type Caller struct {
	// identity is a SPIFFE ID; "" for a caller without one.
	identity string
	// port of the destination.
	port uint16
	// request is nil where only a connection is asked about.
	request *Request
}

// Verdict is what a guard says.
type Verdict string

// Verdicts.
const (
	Allowed Verdict = "Allowed"
	Denied  Verdict = "Denied"
	// Depends: an expression in CEL, or what of the request isn't known, decides.
	Depends Verdict = "Depends"
)

// Decision is a verdict, and what it comes from.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	// Policy that decides, and its rule; empty where none does.
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule,omitempty"`
	// Reason for people.
	Reason string `json:"reason"`
	// DryRun says what policies that are only tried would change.
	DryRun []string `json:"dryRun,omitempty"`
}

// decideAll asks the guards of a destination, all of which must let the caller in. The first that doesn't has the last
// word.
func decideAll(guards []model.Guard, c Caller) Decision {
	out := Decision{Verdict: Allowed, Reason: "no policy is in force"}
	var depends *Decision
	for _, g := range guards {
		d := decide(g, c)
		d.DryRun = append(out.DryRun, d.DryRun...)
		switch {
		case d.Verdict == Denied:
			return d
		case d.Verdict == Depends && depends == nil:
			depends = &d
		}
		if d.Policy == "" && out.Policy != "" {
			d.Policy, d.Rule, d.Reason = out.Policy, out.Rule, out.Reason
		}
		out = d
	}
	if depends != nil {
		return *depends
	}
	return out
}

// Guards says what the guards of a destination make of a request to one of its ports.
func Guards(guards []model.Guard, identity string, port uint16, q Request) Decision {
	return decideAll(guards, Caller{identity: identity, port: port, request: &q})
}

// atPod asks what the node proxy of a pod goes by.
func atPod(g model.PodGuard, c Caller) Decision {
	at := func(w model.GuardedPort) bool { return w.Port == c.port && w.Waypoint == c.identity }
	waypoint := c.identity != "" && slices.ContainsFunc(g.Waypoints, at)
	switch {
	case waypoint:
		return Decision{Verdict: Allowed, Reason: "the caller is a waypoint of the port, which has decided already"}
	case slices.Contains(g.Only, c.port):
		return Decision{Verdict: Denied, Reason: fmt.Sprintf(
			"requests to port %d are decided by a waypoint, and nobody else may connect there", c.port)}
	}
	return decideAll([]model.Guard{g.Guard}, c)
}

func decide(g model.Guard, c Caller) Decision {
	out := Decision{Verdict: Allowed, Reason: "no policy is in force"}
	for _, l := range g.Levels() {
		d := level(l, c)
		l.Policies = inForce(l.Policies)
		tried := level(l, c)
		if d.Verdict != Denied && tried.Verdict != d.Verdict {
			out.DryRun = append(out.DryRun, fmt.Sprintf("with what is tried: %s, %s", tried.Verdict, tried.Reason))
		}
		d.DryRun = out.DryRun
		if d.Verdict == Denied {
			return d
		}
		if d.Policy != "" || d.Verdict == Depends || out.Policy == "" {
			out = d
		}
		if out.Verdict == Depends {
			return out
		}
	}
	if len(g.Authentication) > 0 {
		out.Verdict, out.Policy, out.Rule = Depends, model.AuthenticationSet(g.Authentication), ""
		what := "the request's token decides"
		if len(g.Asked) > 0 {
			what = "the request's token, if one is asked for, and the authorization service decide"
		}
		out.Reason = fmt.Sprintf("%s, by AuthenticationPolicy %s", what, strings.ReplaceAll(out.Policy, ",", " and "))
	}
	return out
}

// asksForClaims tells whether a rule of a policy, by its label, asks for claims.
func asksForClaims(p model.AccessPolicy, rule string) bool {
	return slices.ContainsFunc(p.Rules, func(r model.AccessRule) bool {
		return r.Label() == rule && r.Request != nil && len(r.Request.Claims) > 0
	})
}

// inForce is what would hold if nothing were only tried.
func inForce(policies []model.AccessPolicy) []model.AccessPolicy {
	out := slices.Clone(policies)
	for n := range out {
		out[n].DryRun = false
	}
	return out
}

// level decides for the policies of one level.
func level(l model.GuardLevel, c Caller) Decision {
	allows := l.DefaultDeny
	// What depends in a DENY policy outweighs what an ALLOW policy says; in another it matters where none matches.
	var denied, depends, allowed *Decision
	for _, p := range l.Policies {
		if p.DryRun || !isFor(p, c.port) {
			continue
		}
		allows = allows || !p.Deny
		rule, matches := match(p, c)
		d := &Decision{Policy: p.Name.String(), Rule: rule}
		switch {
		case matches == no:
		case matches == unknown:
			d.Verdict = Depends
			d.Reason = fmt.Sprintf("rule %s of AuthorizationPolicy %s depends on what isn't known here", rule, p.Name)
			if asksForClaims(p, rule) {
				d.Reason = fmt.Sprintf("rule %s of AuthorizationPolicy %s goes by what the request's token claims", rule, p.Name)
			}
			if p.Deny {
				denied = d
			} else {
				depends = d
			}
		case p.Deny && rule == model.RuleAuthentication:
			d.Verdict, d.Reason = Denied, fmt.Sprintf("AuthenticationPolicy %s decides on requests, and the port carries none "+
				"that can be told apart", p.Name)
			return *d
		case p.Deny:
			d.Verdict, d.Reason = Denied, fmt.Sprintf("rule %s of AuthorizationPolicy %s (DENY) matches", rule, p.Name)
			return *d
		case allowed == nil:
			d.Verdict, d.Reason = Allowed, fmt.Sprintf("rule %s of AuthorizationPolicy %s (ALLOW) matches", rule, p.Name)
			allowed = d
		}
	}
	switch {
	case denied != nil:
		return *denied
	case allowed != nil:
		return *allowed
	case depends != nil:
		return *depends
	case allows:
		return Decision{Verdict: Denied, Reason: l.NoAllow() + listed(l.Policies)}
	}
	return Decision{Verdict: Allowed, Reason: fmt.Sprintf("no policy of level %s is in force", l.Name)}
}

// listed names the policies that would have had to match.
func listed(policies []model.AccessPolicy) string {
	var names []string
	for _, p := range policies {
		if !p.Deny && !p.DryRun {
			names = append(names, p.Name.String())
		}
	}
	if len(names) == 0 {
		return ", and the mesh lets nobody in by default"
	}
	return " (" + strings.Join(names, ", ") + ")"
}
