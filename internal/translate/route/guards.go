// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A request is decided where it leaves for an application: every cluster of a waypoint has a filter
// (names.FilterAuthorization) that does nothing until the table configures it. So what is looked at is what the
// application gets, whatever routes made of it.

// refusing configures that filter for one way that requests take: it asks all guards, and refuses what any refuses. It
// has one policy for each reason to refuse, by whose name the access log knows it. Without guards it lets all pass.
func refusing(guards []model.Guard) *httprbacv3.RBACPerRoute {
	return perRoute(guards, envoy.DryRunPrefix, func(tried bool) *rbacv3.RBAC {
		if r := refusals(guards, tried); len(r) > 0 {
			return &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: r}
		}
		return nil
	})
}

// allowing likewise configures the filter that asks those ALLOW policies that have expressions in CEL. They can't be
// asked by their opposite: an expression that fails matches nothing, nor does its negation.
func allowing(guards []model.Guard) *httprbacv3.RBACPerRoute {
	return perRoute(guards, envoy.DryRunCELPrefix, func(tried bool) *rbacv3.RBAC { return expressions(guards, tried) })
}

// perRoute leaves what it makes of policies that are only tried under a prefix of its own, for the filters share the
// rest of the name.
func perRoute(guards []model.Guard, prefix string, rules func(tried bool) *rbacv3.RBAC) *httprbacv3.RBACPerRoute {
	out := &httprbacv3.RBAC{Rules: rules(false), TrackPerRuleStats: true}
	if slices.ContainsFunc(guards, model.Guard.Tries) {
		out.ShadowRules, out.ShadowRulesStatPrefix = rules(true), prefix
	}
	if out.Rules == nil && out.ShadowRules == nil {
		return &httprbacv3.RBACPerRoute{}
	}
	return &httprbacv3.RBACPerRoute{Rbac: out}
}

// guardsOf is the configuration of a way that has guards, of a rule that may have a service asked itself; elsewhere are
// the guards that would be asked without it.
func guardsOf(guards, elsewhere []model.Guard, own *model.ExternalAuth) map[string]*anypb.Any {
	if len(guards) == 0 && len(elsewhere) == 0 {
		return nil
	}
	out := map[string]*anypb.Any{
		names.FilterAuthorization:    envoy.Any(refusing(guards)),
		names.FilterAuthorizationCEL: envoy.Any(allowing(guards)),
	}
	maps.Copy(out, asking(guards, elsewhere))
	maps.Copy(out, showing(own, guards, elsewhere))
	if readRequests(guards) || readRequests(elsewhere) {
		out[names.FilterAuthentication] = envoy.Any(authenticating(model.Needed(guards), guards))
	}
	return out
}

// merge adds configurations to those that are there.
func merge(into, more map[string]*anypb.Any) map[string]*anypb.Any {
	if into == nil {
		return more
	}
	maps.Copy(into, more)
	return into
}

// level of a guard.
type level struct {
	model.GuardLevel
	// closed: what no policy allows is refused.
	closed         bool
	denies, allows []rule
}

// rule of a policy.
type rule struct {
	model.AccessRule
	name string
	// known by these policies is what a token claims.
	known []model.PolicyName
}

// levelsOf a guard, with the policies that are tried only, or without.
func levelsOf(g model.Guard, tried bool) (out []level) {
	for _, of := range g.Levels() {
		l := level{GuardLevel: of, closed: of.DefaultDeny}
		for _, p := range of.Policies {
			if p.DryRun && !tried {
				continue
			}
			l.closed = l.closed || !p.Deny
			for _, r := range p.Rules {
				if named := (rule{r, p.RuleLabel(r), g.Authentication}); p.Deny {
					l.denies = append(l.denies, named)
				} else {
					l.allows = append(l.allows, named)
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func (l level) byExpression() bool {
	return slices.ContainsFunc(l.allows, func(r rule) bool { return r.Request != nil && r.Request.CEL != "" })
}

// refusals are the reasons to refuse, by name.
func refusals(guards []model.Guard, tried bool) map[string]*rbacv3.Policy {
	out := map[string]*rbacv3.Policy{}
	everybody := false // is denied already, as policies do that are too much
	for _, g := range guards {
		for _, l := range levelsOf(g, tried) {
			for _, r := range l.denies {
				all := r.Sources == nil && r.Request == nil
				if all && everybody {
					continue
				}
				everybody = everybody || all
				if r.Sources != nil && out[envoy.Unproved] == nil {
					add(out, envoy.Unproved, &rbacv3.Policy{Principals: []*rbacv3.Principal{unproved()}})
				}
				add(out, model.Denied(r.name), policyOf([]rule{r}, true))
			}
			if l.closed && !l.byExpression() {
				var allowed []*rbacv3.Principal
				for _, r := range l.allows {
					allowed = append(allowed, ruleOf(r, false))
				}
				add(out, l.NoAllow(),
					&rbacv3.Policy{Principals: []*rbacv3.Principal{envoy.Not(envoy.OneOf(allowed...))}})
			}
		}
	}
	return out
}

// mostCombined is how many rules there may be where several guards have expressions: each with each. Beyond that,
// nothing is allowed.
const mostCombined = 256

// expressions are the rules of the levels that have some; nil where none has. Of each level one must match.
func expressions(guards []model.Guard, tried bool) *rbacv3.RBAC {
	var combined [][]rule
	for _, g := range guards {
		for _, l := range levelsOf(g, tried) {
			if !l.closed || !l.byExpression() {
				continue
			}
			if combined == nil {
				combined = [][]rule{nil}
			}
			var longer [][]rule
			for _, begin := range combined {
				for _, r := range l.allows {
					longer = append(longer, append(slices.Clone(begin), r))
				}
			}
			combined = longer
			if len(combined) > mostCombined {
				return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}
			}
		}
	}
	if combined == nil {
		return nil
	}
	out := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{}}
	for _, rules := range combined {
		var all []string
		for _, r := range rules {
			all = append(all, r.name)
		}
		add(out.Policies, "ALLOW "+strings.Join(all, " and "), policyOf(rules, false))
	}
	return out
}

// add a policy under a name of its own. One that says the same is there already.
func add(out map[string]*rbacv3.Policy, name string, p *rbacv3.Policy) {
	unique := text(name)
	for n := 2; out[unique] != nil; n++ {
		unique = fmt.Sprintf("%s (%d)", text(name), n)
	}
	p.Permissions = []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}
	out[unique] = p
}

// policyOf matches what all of the rules match. An expression that can't be told to Envoy denies everything, and allows
// nothing.
func policyOf(rules []rule, deny bool) *rbacv3.Policy {
	out := &rbacv3.Policy{}
	var all []*rbacv3.Principal
	var expressions []string
	for _, r := range rules {
		all = append(all, ruleOf(r, deny))
		if r.Request != nil && r.Request.CEL != "" {
			expressions = append(expressions, "("+r.Request.CEL+"\n)")
		}
	}
	out.Principals = []*rbacv3.Principal{envoy.AllOf(all...)}
	if len(expressions) > 0 {
		e, err := envoy.CEL(strings.Join(expressions, " && "))
		if err != nil && !deny {
			out.Principals = []*rbacv3.Principal{envoy.Nobody()}
		}
		out.Condition = e
	}
	return out
}

// ruleOf matches what a rule matches, but for an expression.
func ruleOf(r rule, deny bool) *rbacv3.Principal {
	var all []*rbacv3.Principal
	if r.Sources != nil {
		all = append(all, sourcesOf(r.Sources))
	}
	if r.Request != nil {
		all = append(all, requestOf(*r.Request, r.known, deny)...)
	}
	return envoy.AllOf(all...)
}

// sourcesOf matches a caller who is one of them; several by one expression. It asks the filter state that the listener
// sets when the handshake has proved who the peer is. RBAC's own principal (authenticated) costs several times as much,
// for it looks through all names of the certificate.
func sourcesOf(sources []model.AccessSource) *rbacv3.Principal {
	if len(sources) == 0 {
		return envoy.Nobody()
	}
	m := exact(text(sources[0].Identity))
	switch {
	case len(sources) == 1 && sources[0].Prefix:
		m = beginning(sources[0].Identity)
	case len(sources) > 1:
		m = matching(anyOf(sources, func(s model.AccessSource) string {
			if s.Prefix {
				return regexp.QuoteMeta(s.Identity) + ".*"
			}
			return regexp.QuoteMeta(s.Identity)
		}))
	}
	return identity(m)
}

func identity(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
		Key:     names.FilterStateSource,
		Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m},
	}}}
}

func beginning(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: text(s)}}
}

// unproved matches a caller of whom nothing is known. There is none behind a handshake; if there were, no rule that
// denies an identity would be about it.
func unproved() *rbacv3.Principal { return envoy.Not(identity(beginning("spiffe://"))) }
