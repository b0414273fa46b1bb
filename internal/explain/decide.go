// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// Caller is who asks, and for what.
type Caller struct {
	// identity is a SPIFFE ID; "" for a caller without one.
	identity string
	// port of the destination.
	port uint16
	// request as the guards see it; nil where only a connection is asked about.
	request *route.Asked
	// sent are the headers that the request came with.
	sent http.Header
	// changed: somebody has been asked on the way who may change headers.
	changed bool
	// claims are no where the request has no token that could claim anything.
	claims truth
}

// Verdict is what a guard says.
type Verdict string

// Verdicts.
const (
	Allowed Verdict = "Allowed"
	Denied  Verdict = "Denied"
	// Answered: the proxy answers the request by itself, and no application hears of it.
	Answered Verdict = "Answered"
	// Depends: somebody else decides, or what of the request isn't known.
	Depends Verdict = "Depends"
)

// Kinds of objects that decide, beside routes.
const (
	kindAuthorization  = "AuthorizationPolicy"
	kindAuthentication = "AuthenticationPolicy"
	kindTraffic        = "TrafficPolicy"
)

// Decision is a verdict, and what it comes from.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	// Kind and name of the object that decides (of several, all names), and its rule; empty where none does.
	Kind   string `json:"kind,omitempty"`
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule,omitempty"`
	// Status of HTTP with which the request is answered here; 0: it goes on.
	Status int `json:"status,omitempty"`
	// MayAnswer are those with which it may be answered here, as far as they are the proxy's own.
	MayAnswer []int `json:"mayAnswer,omitempty"`
	// DependsOn is who or what decides where the verdict is Depends.
	DependsOn string `json:"dependsOn,omitempty"`
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
			d.Kind, d.Policy, d.Rule, d.Reason = out.Kind, out.Policy, out.Rule, out.Reason
		}
		out = d
	}
	if depends != nil {
		return *depends
	}
	return out
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
	if len(g.Authentication) == 0 {
		c.claims = no // for nobody has verified any
	}
	var dryRun []string
	var depends *Decision
	for _, l := range g.Levels() {
		d := level(l, c)
		l.Policies = inForce(l.Policies)
		if tried := level(l, c); d.Verdict != Denied && tried.Verdict != d.Verdict {
			dryRun = append(dryRun, fmt.Sprintf("with what is tried: %s, %s", tried.Verdict, tried.Reason))
		}
		d.DryRun = dryRun
		switch {
		case d.Verdict == Denied:
			return d
		case d.Verdict == Depends && depends == nil:
			depends = &d
		}
		if d.Policy != "" || out.Policy == "" {
			out = d
		}
	}
	if depends != nil {
		out = *depends
	}
	out.DryRun = dryRun
	return out
}

// dependsOn says what decides about a rule of a policy, by its label, where what is known doesn't.
func dependsOn(p model.AccessPolicy, label string, c Caller) (what, why string) {
	n := slices.IndexFunc(p.Rules, func(r model.AccessRule) bool { return r.Label() == label && r.Request != nil })
	name := fmt.Sprintf("rule %s of AuthorizationPolicy %s", label, p.Name)
	if n < 0 {
		return name, name + " depends on what isn't known here"
	}
	switch r := p.Rules[n].Request; {
	case r.CEL != "":
		return "the CEL expression of " + name, name + " has an expression in CEL, which is not evaluated here"
	case c.request == nil:
		return "the request", name + " goes by the request: say --method and --path"
	case c.request.Host == "" && (len(r.Hosts) > 0 || slices.ContainsFunc(r.Headers, func(h model.AccessHeader) bool {
		return strings.EqualFold(h.Name, "host")
	})):
		return "the request's host", name + " goes by the host: say -H 'Host: ...'"
	case slices.ContainsFunc(r.Headers, c.guesses):
		return "the request's headers", name + " goes by headers that are not known before they get there"
	case len(r.Claims) > 0:
		return "the claims of the request's token", name + " goes by what the request's token claims"
	}
	return name, name + " depends on what isn't known here"
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
		d := &Decision{Kind: kindAuthorization, Policy: p.Name.String(), Rule: rule}
		switch {
		case matches == no:
		case matches == unknown:
			d.Verdict = Depends
			d.DependsOn, d.Reason = dependsOn(p, rule, c)
			if p.Deny {
				denied = d
			} else {
				depends = d
			}
		case p.Deny && rule == model.RuleAuthentication:
			d.Kind, d.Verdict = kindAuthentication, Denied
			d.Reason = fmt.Sprintf("AuthenticationPolicy %s decides on requests, and the port carries none "+
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
	case allows && allowed == nil && depends == nil:
		return Decision{Verdict: Denied, Reason: l.NoAllow() + listed(l.Policies)}
	case denied != nil:
		return *denied
	case allowed != nil:
		return *allowed
	case depends != nil:
		return *depends
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
