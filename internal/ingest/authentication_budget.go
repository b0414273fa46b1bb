// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// mostOfOthers is what the AuthenticationPolicies of one namespace may cost the waypoints of another: a route is enough
// to have them there. The own namespace pays with its own waypoint.
var mostOfOthers = authenticationCost{bytes: 2 << 20, remote: 64}

// authenticationCost is what policies cost the proxies of a waypoint.
type authenticationCost struct {
	bytes int
	// remote are providers whose keys the proxies fetch: up to model.MostKeys of each, whatever the policy says.
	remote int
}

func (c authenticationCost) plus(o authenticationCost) authenticationCost {
	return authenticationCost{c.bytes + o.bytes, c.remote + o.remote}
}

func (c authenticationCost) fits(most authenticationCost) bool {
	return c.bytes <= most.bytes && c.remote <= most.remote
}

// authenticationSharing is what of a waypoint's sets of policies is affordable.
type authenticationSharing struct {
	sets [][]cluster.Key
	// over are the policies of other namespaces in the sets that aren't, and what their namespace had spent, and lacked
	// for the first of them.
	over map[cluster.Key]overspent
}

type overspent struct{ spent, price authenticationCost }

// affordable are the sets of policies that a waypoint of a namespace verifies tokens for, the first ones. The others
// aren't known to the proxies, and so they let nothing pass where a table asks for them.
func affordable(
	owner string, sets [][]cluster.Key, of func(cluster.Key) *model.Authentication,
) (out authenticationSharing) {
	spent, paid := map[string]authenticationCost{}, map[cluster.Key]bool{}
	out.over = map[cluster.Key]overspent{}
	for _, set := range sets {
		price, others := priceOf(set, paid, of), []string{}
		for _, name := range set {
			if name.Namespace != owner && !slices.Contains(others, name.Namespace) {
				others = append(others, name.Namespace)
			}
		}
		over := slices.DeleteFunc(slices.Clone(others), func(ns string) bool {
			return spent[ns].plus(price).fits(mostOfOthers)
		})
		if len(over) > 0 {
			for _, name := range set {
				_, told := out.over[name]
				if !told && slices.Contains(over, name.Namespace) {
					out.over[name] = overspent{spent[name.Namespace], price}
				}
			}
			continue
		}
		for _, ns := range others {
			spent[ns] = spent[ns].plus(price)
		}
		for _, name := range set {
			paid[name] = true
		}
		out.sets = append(out.sets, set)
	}
	return out
}

func (i *Ingest) shareAuthentication(c *memo.Ctx, gateway cluster.Key) *authenticationSharing {
	w := i.Waypoint.Get(c, gateway)
	if w == nil {
		return &authenticationSharing{}
	}
	var sets [][]cluster.Key
	for _, p := range w.Ports {
		sets = append(sets, i.setsOf.Get(c, model.Attachment{Port: p.ServicePort})...)
	}
	sets = sortedSets(sets)
	oldestFirst(sets, func(name cluster.Key) (created time.Time) {
		if p := i.authentication.Get(c, name); p != nil {
			created = p.Created
		}
		return created
	})
	out := affordable(gateway.Namespace, sets, func(name cluster.Key) *model.Authentication {
		if p := i.authentication.Get(c, name); p != nil {
			return &p.Content.Authentication
		}
		return nil
	})
	out.sets = sortedSets(out.sets)
	return &out
}

// oldestFirst orders sets by their youngest policies, and those of an age as they are: a new policy takes nothing from
// those that work, whatever it is called and whichever it is in a set with.
func oldestFirst(sets [][]cluster.Key, created func(cluster.Key) time.Time) {
	ages := make(map[cluster.Key]time.Time)
	for _, name := range slices.Concat(sets...) {
		ages[name] = created(name)
	}
	youngest := func(set []cluster.Key) (at time.Time) {
		for _, name := range set {
			if ages[name].After(at) {
				at = ages[name]
			}
		}
		return at
	}
	slices.SortStableFunc(sets, func(a, b []cluster.Key) int { return youngest(a).Compare(youngest(b)) })
}

// unaffordable is about the first waypoint at which a policy is one too many of its namespace's.
func (i *Ingest) unaffordable(c *memo.Ctx, name cluster.Key, waypoints []GuardingWaypoint) *Verdict {
	for _, w := range waypoints {
		if w.Gateway.Namespace == name.Namespace {
			continue
		}
		if o, over := i.authenticationShares.Get(c, w.Gateway).over[name]; over {
			return &Verdict{Reason: v1alpha1.PolicyReasonOverBudget, Message: fmt.Sprintf(
				"requests that waypoint %s sends on are refused where they need it: there, all AuthenticationPolicies of "+
					"namespace %s may have %d bytes of keys and rules and %d providers with remote keys. Others have %d bytes "+
					"and %d providers, and %d and %d more are needed: use fewer or smaller policies for Services that are "+
					"reached by it, one for several of them, or fewer routes", w.Gateway, name.Namespace, mostOfOthers.bytes,
				mostOfOthers.remote, o.spent.bytes, o.spent.remote, o.price.bytes, o.price.remote)}
		}
	}
	return nil
}

// priceOf a set are the rules that it becomes, and those of its policies that no set before has paid for.
func priceOf(
	set []cluster.Key, paid map[cluster.Key]bool, of func(cluster.Key) *model.Authentication,
) (out authenticationCost) {
	const each = 512
	rules := 1
	for _, name := range set {
		p := of(name)
		if p == nil || p.Tokens == nil {
			continue
		}
		places := 1
		for _, provider := range p.Tokens.Providers {
			places += len(provider.Headers) + len(provider.Params) + len(provider.Cookies)
			if !paid[name] {
				out.bytes += each + bytesOfProvider(provider)
				if provider.Remote != nil {
					out.remote++
				}
			}
		}
		if p.Tokens.Optional {
			rules = min(rules*places, model.MostRulesOfTokens)
		}
	}
	out.bytes += rules * len(set) * each
	return out
}

func bytesOfProvider(p model.TokenProvider) (bytes int) {
	bytes = len(p.Keys) + len(p.Issuer) + len(strings.Join(p.Audiences, " "))
	if p.Remote != nil {
		bytes += len(p.Remote.URI)
	}
	for _, c := range p.Claims {
		bytes += len(c.Claim) + len(c.Header)
	}
	return bytes
}
