// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// authentication is what an AuthenticationPolicy asks for, and what of it can't be found.
type authentication struct {
	model.Authentication
	unresolved *Verdict
}

// authenticated is a port of a Service, by its number, and the policy in force there.
type authenticated struct {
	port   uint16
	policy cluster.Key
}

// authenticationDecisions are about AuthenticationPolicies; see docs/design/authentication.md.
type authenticationDecisions struct {
	authentication *policy.Policies[authentication]
	// authenticated are the ports of a Service at which a policy is in force.
	authenticated *memo.Func[cluster.Key, []authenticated]
	// setsOf a table are the policies that it asks for together, wherever requests go by it.
	// ownSetsOf are those of the ways that the Service's own namespace has requests take.
	setsOf, ownSetsOf *memo.Func[model.Attachment, [][]cluster.Key]
	// authenticationShares are the sets of a waypoint's tables that it has room for.
	authenticationShares *memo.Func[cluster.Key, *authenticationSharing]
	// modesIn are the policies of a namespace on its pods' modes, modeOf is that of a pod.
	modesIn *memo.Func[string, []v1alpha1.AuthenticationPolicy]
	modeOf  *memo.Func[cluster.Key, *podMode]
	// Authentications are what a waypoint's tables ask for.
	Authentications *memo.Func[cluster.Key, *model.Authentications]
}

func (i *Ingest) defineAuthentication(g *memo.Graph) {
	i.authentication = definePolicies(g, i, i.authenticationPolicies())
	i.defineModes(g)
	i.authenticated = memo.Define(g, "authenticated", slices.Equal[[]authenticated], i.authenticatedPorts)
	i.ownSetsOf = memo.Define(g, "ownAuthenticationSets", reflectEqual[[][]cluster.Key], i.ownAuthenticationSets).Steady()
	i.setsOf = memo.Define(g, "authenticationSets", reflectEqual[[][]cluster.Key], i.authenticationSets).Steady()
	i.authenticationShares = memo.Define(g, "authenticationShares", reflectEqual[*authenticationSharing],
		i.shareAuthentication)
	i.Authentications = memo.Define(g, "authentications", reflectEqual[*model.Authentications], i.authentications)
}

func (i *Ingest) authenticationPolicies() policyKind[*v1alpha1.AuthenticationPolicy, authentication] {
	return policyKind[*v1alpha1.AuthenticationPolicy, authentication]{
		in: i.store.Authentication,
		read: func(c *memo.Ctx, p *v1alpha1.AuthenticationPolicy) (out authentication, invalid string) {
			out.Policy = cluster.Key{Namespace: p.Namespace, Name: p.Name}
			out.Edition = model.EditionOf(p.UID, p.Generation)
			if p.Spec.JWT != nil {
				out.Tokens, out.unresolved, invalid = i.tokens(c, p.Namespace, p.Spec.JWT)
			}
			if e := p.Spec.ExternalAuthorization; e != nil && invalid == "" {
				var unresolved *Verdict
				out.Asked, unresolved, invalid = i.externalAuthorization(c, p.Namespace, e)
				out.unresolved = cmp.Or(out.unresolved, unresolved)
			}
			if p.Spec.JWT == nil && p.Spec.ExternalAuthorization == nil {
				invalid = "the policy asks for nothing: set jwt or externalAuthorization"
			}
			if invalid != "" {
				out.Tokens, out.Asked, out.Invalid = nil, nil, true
				invalid += "; until that is mended, all requests are refused"
			}
			return out, invalid
		},
		needs: i.authenticationNeeds, guards: true,
	}
}

// authenticates tells whether requests to anything in a namespace may need authentication. Most namespaces have no such
// policy.
func (i *Ingest) authenticates(c *memo.Ctx, namespace string) bool {
	return member.Enrolled(i.namespace(c, namespace)) &&
		slices.ContainsFunc(i.store.Authentication.By(c, cluster.ByNamespace, namespace), func(key cluster.Key) bool {
			p, ok := i.store.Authentication.Get(c, key)
			return ok && p.Spec.MTLS == nil
		})
}

func (i *Ingest) authenticatedPorts(c *memo.Ctx, key cluster.Key) (out []authenticated) {
	svc := i.Service.Get(c, key)
	if svc == nil || !i.authenticates(c, key.Namespace) {
		return nil
	}
	for _, p := range svc.Ports {
		if in := i.authentication.InForce.Get(c, svc.Attachment(p)); in != nil {
			out = append(out, authenticated{p.Number, cluster.Key{Namespace: in.Ref.Namespace, Name: in.Ref.Name}})
		}
	}
	return out
}

// authenticationAt is the policy in force for a port of a Service.
func (i *Ingest) authenticationAt(c *memo.Ctx, port model.ServicePort) []cluster.Key {
	for _, a := range i.authenticated.Get(c, port.ServiceName()) {
		if a.port == port.Port {
			return []cluster.Key{a.policy}
		}
	}
	return nil
}

// whomToAsk are the services that policies have asked, in their order.
func (i *Ingest) whomToAsk(c *memo.Ctx, policies []cluster.Key) (out []model.ExternalAuth) {
	for _, name := range policies {
		if p := i.authentication.Get(c, name); p != nil && p.Content.Asked != nil {
			out = append(out, *p.Content.Asked)
		}
	}
	return out
}

// authenticationOfPods are the policies at a port of pods: of all Services that lead there, so that none is a way
// around another.
func (i *Ingest) authenticationOfPods(c *memo.Ctx, k PodKind, target uint16) (out []cluster.Key) {
	for _, p := range i.portsOf.Get(c, k) {
		if p.target == target {
			out = append(out, i.authenticationAt(c, p.ServicePort)...)
		}
	}
	return model.Together(sortedKeys(out))
}

func sortedKeys(in []cluster.Key) []cluster.Key {
	slices.SortFunc(in, byName)
	return slices.Compact(in)
}

// authenticationSets are those of all ways that requests take by a table: the translator asks for the same, by
// model.Needed.
func (i *Ingest) authenticationSets(c *memo.Ctx, at model.Attachment) [][]cluster.Key {
	table := i.Table.Get(c, at)
	out := append(setsOfRules(table.Default), model.Needed(table.Guards))
	for _, caller := range table.Callers {
		out = append(out, setsOfRules(caller.Rules)...)
	}
	return sortedSets(out)
}

func (i *Ingest) ownAuthenticationSets(c *memo.Ctx, at model.Attachment) [][]cluster.Key {
	table := i.Table.Get(c, at)
	return sortedSets(append(setsOfRules(table.Default), model.Needed(table.Guards)))
}

func setsOfRules(rules []*model.Rule) (out [][]cluster.Key) {
	for _, r := range rules {
		for _, b := range r.Backends {
			if len(b.Guards) > 0 {
				out = append(out, model.Needed(b.Guards))
			}
		}
	}
	return out
}

// sortedSets has each set once, and none that is empty.
func sortedSets(in [][]cluster.Key) [][]cluster.Key {
	in = slices.DeleteFunc(in, func(s []cluster.Key) bool { return len(s) == 0 })
	slices.SortFunc(in, func(a, b []cluster.Key) int { return slices.CompareFunc(a, b, byName) })
	if in = slices.CompactFunc(in, slices.Equal[[]cluster.Key]); len(in) == 0 {
		return nil
	}
	return in
}

func (i *Ingest) authentications(c *memo.Ctx, gateway cluster.Key) *model.Authentications {
	out := &model.Authentications{}
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return out
	}
	out.Sets = i.authenticationShares.Get(c, gateway).sets
	for _, name := range sortedKeys(slices.Concat(out.Sets...)) {
		if p := i.authentication.Get(c, name); p != nil {
			a := p.Content.Authentication
			by := asker{waypoint: w.Identity, owner: gateway.Namespace, author: name.Namespace}
			a.Tokens = i.askableKeys(c, by, a.Tokens)
			out.Policies = append(out.Policies, a)
		}
	}
	return out
}

// keyServers are the ports that a waypoint must reach for what policies ask for: of keys, and of whom it asks.
func (i *Ingest) keyServers(c *memo.Ctx, sets [][]cluster.Key) (out []model.ServicePort) {
	for _, name := range sortedKeys(slices.Concat(sets...)) {
		p := i.authentication.Get(c, name)
		if p == nil {
			continue
		}
		if a := p.Content.Asked; a != nil && !a.Invalid {
			out = append(out, a.Service)
		}
		if p.Content.Tokens == nil {
			continue
		}
		for _, provider := range p.Content.Tokens.Providers {
			if r := provider.Remote; r != nil {
				out = append(out, r.Service)
			}
		}
	}
	return out
}

// authenticationNeeds says who must carry a policy out: the proxies of all waypoints that send to the pods behind the
// Service, and those of the pods' nodes, which let in nobody else.
func (i *Ingest) authenticationNeeds(c *memo.Ctx, at []model.Attachment) (out ParentReport) {
	svc := at[0].Port.ServiceName()
	target := AccessTarget{Object: policy.Object{GroupKind: policy.Service, NamespacedName: svc}}
	var ports []model.ServicePort
	for _, a := range at {
		ports = append(ports, a.Port)
	}
	i.concernedRequests(c, &target, ports)
	e := &Enforcement{
		Application: true,
		Pods:        i.guardedPods.Get(c, target.pods), Closed: i.closedPorts(c, target, ""),
		Waypoints: i.guardingWaypoints(c, target),
	}
	for n := range e.Waypoints {
		e.Waypoints[n].Authentication = true
	}
	out.Enforcement = e
	in := i.authentication.InForce.Get(c, at[0])
	e.Means = authenticationMeans(in.Content.Authentication)
	e.Keys = fetchedKeys(in.Content.Authentication)
	out.Unprogrammed = in.Content.unresolved
	if out.Unprogrammed == nil {
		out.Unprogrammed = i.unaskableKeys(c, at[0].Port, in.Content.Tokens)
	}
	if out.Unprogrammed == nil && in.Content.Asked != nil {
		out.Unprogrammed = i.unaskedBy(c, at[0].Port, *in.Content.Asked)
	}
	if out.Unprogrammed == nil {
		out.Unprogrammed = i.unaffordable(c, in.Content.Policy, e.Waypoints)
	}
	return out
}

// authenticationMeans says what a policy changes.
func authenticationMeans(a model.Authentication) string {
	var out []string
	switch t := a.Tokens; {
	case a.Invalid:
		return "all requests are refused"
	case t != nil && t.Optional:
		out = append(out, "requests with a token that isn't good are refused, and those without one pass as nobody")
	case t != nil:
		out = append(out, "requests without a token that is good are refused")
	}
	if e := a.Asked; e != nil {
		text := fmt.Sprintf("requests that Service %s doesn't let pass are refused", e.Service.ServiceName())
		if e.Open {
			text += ", and pass where it doesn't answer"
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}
