// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Guard decides whether a caller may come in. In this order: what a Deny policy matches is refused; where there are
// policies that allow, or DefaultDeny is set, one must match; all else comes in. Level by level, Network first: both
// must let it in.
type Guard struct {
	// DefaultDeny: the mesh refuses what no Network policy allows.
	DefaultDeny bool
	// Network and Application policies, each sorted by namespace and name.
	Network, Application []AccessPolicy
	// Authentication are the AuthenticationPolicies that a request must satisfy besides, sorted. What its token claims is
	// known by these, and by no others.
	Authentication []types.NamespacedName
	// Asked are the services that these policies have asked about requests, in their order.
	Asked []ExternalAuth
}

// Tries tells whether the guard has policies that are tried only.
func (g Guard) Tries() bool {
	tried := func(p AccessPolicy) bool { return p.DryRun }
	return slices.ContainsFunc(g.Network, tried) || slices.ContainsFunc(g.Application, tried)
}

// InForce is the guard without the policies that are tried only.
func (g Guard) InForce() Guard {
	g.Network, g.Application = only(g.Network, false), only(g.Application, false)
	return g
}

// Tried is the guard of the policies that are tried only.
func (g Guard) Tried() Guard {
	return Guard{Network: only(g.Network, true), Application: only(g.Application, true)}
}

func only(in []AccessPolicy, dryRun bool) (out []AccessPolicy) {
	for _, p := range in {
		if p.DryRun == dryRun {
			out = append(out, p)
		}
	}
	return out
}

// Refuses says why a caller, or any of those that who is a prefix of, is not let in, whatever it asks for; "" if all
// are. What depends on the request refuses where it denies, and lets nobody in where it allows.
func (g Guard) Refuses(who AccessSource) string {
	if len(g.Authentication) > 0 {
		return "AuthenticationPolicy " + g.Authentication[0].String()
	}
	for _, l := range g.Levels() {
		closed, allowed := l.DefaultDeny, false
		for _, p := range l.Policies {
			if p.DryRun {
				continue
			}
			closed = closed || !p.Deny
			for _, r := range p.Rules {
				if p.Deny {
					if r.Sources == nil || slices.ContainsFunc(r.Sources, who.overlaps) {
						return Denied(p.RuleLabel(r))
					}
				} else if r.Request == nil && (r.Sources == nil || slices.ContainsFunc(r.Sources, who.within)) {
					allowed = true
				}
			}
		}
		if closed && !allowed {
			return l.NoAllow()
		}
	}
	return ""
}

// Levels of the guard, in the order in which they decide.
func (g Guard) Levels() [2]GuardLevel {
	return [2]GuardLevel{
		{Name: LevelNetwork, DefaultDeny: g.DefaultDeny, Policies: g.Network},
		{Name: LevelApplication, Policies: g.Application},
	}
}

// Names of levels, as policies have them (spec.enforcementLevel).
const (
	LevelNetwork     = "Network"
	LevelApplication = "Application"
)

// GuardLevel is a level of a Guard, with its Name.
type GuardLevel struct {
	Name string
	// DefaultDeny: the mesh refuses what no policy of the level allows.
	DefaultDeny bool
	Policies    []AccessPolicy
}

// NoAllow is the reason to refuse whom no policy of the level allows, as access logs have it.
func (l GuardLevel) NoAllow() string { return "no ALLOW policy of level " + l.Name + " matches" }

// PodGuard is the guard of a pod, as its node's proxy carries it out. It sees connections only, so its Application
// policies are none.
type PodGuard struct {
	Guard
	// Waypoints that connect to ports of the pod, sorted by port and identity. The guard has been asked at the waypoint
	// already, about the original caller.
	Waypoints []GuardedPort
	// Only are the ports at which nobody comes in but those Waypoints, sorted: requests are decided there.
	Only []uint16
}

// Restricts tells whether the guard keeps anybody out, or would if it were asked.
func (g PodGuard) Restricts() bool {
	inForce := func(p AccessPolicy) bool { return !p.DryRun }
	return g.DefaultDeny || len(g.Only) > 0 || slices.ContainsFunc(g.Network, inForce)
}

// TCPGuard are the guards of a port that a waypoint passes on as it is: all of them must let a caller in. Their
// policies are narrowed down to it already.
type TCPGuard struct {
	ServicePort
	Guards []Guard
}

// GuardedPort is a port of a pod, and the identity of a waypoint that sends to it.
type GuardedPort struct {
	Port     uint16
	Waypoint string
}

// AccessPolicy is a policy as it applies to one destination: rules that can't match there are gone.
type AccessPolicy struct {
	Name types.NamespacedName
	// Edition of the policy; see EditionOf.
	Edition string
	Deny    bool
	// DryRun: nothing is refused because of it, only counted.
	DryRun bool
	// Ports of the destination that the policy is for, sorted; nil: all. Elsewhere it is as if it weren't there. Then each
	// rule has Ports of its own, none but these.
	Ports []uint16
	Rules []AccessRule
}

// EditionOf an object tells which one of its name something was made of, and as it was when: equal on all replicas.
// Versions of resources depend on it: a policy that is taken away and made again, or changed and changed back, makes
// resources that are equal to what they were, and a proxy that has yet to hear of either must not count as one that has
// the last.
func EditionOf(uid types.UID, generation int64) string {
	return string(uid) + "/" + strconv.FormatInt(generation, 10)
}

// Editions of the policies that guards were made of, each once.
type Editions map[string]struct{}

// Add those of some guards.
func (e Editions) Add(guards ...Guard) {
	for _, g := range guards {
		for _, l := range g.Levels() {
			for _, p := range l.Policies {
				e[p.Edition] = struct{}{}
			}
		}
	}
}

// Sorted is how versions depend on them.
func (e Editions) Sorted() []string { return slices.Sorted(maps.Keys(e)) }

// Editions of all policies that are asked about the table's requests.
func (t RouteTable) Editions() Editions {
	out := Editions{}
	out.Add(t.Guards...)
	of := func(rules []*Rule) {
		for _, r := range rules {
			for _, b := range r.Backends {
				out.Add(b.Guards...)
			}
		}
	}
	of(t.Default)
	for _, c := range t.Callers {
		of(c.Rules)
	}
	return out
}

// RuleLabel names a rule of the policy among those of all policies, as access logs have it.
func (p AccessPolicy) RuleLabel(r AccessRule) string { return labelsOf(p.Name) + r.Label() }

// labelsOf is what the labels of a policy's rules begin with.
func labelsOf(policy types.NamespacedName) string { return policy.String() + " rule " }

// Denied is the reason to refuse what a rule of a Deny policy matches, by its RuleLabel, as access logs have it.
func Denied(ruleLabel string) string { return "DENY " + ruleLabel }

// DeniedBy tells whether a reason to refuse is any rule of a Deny policy.
func DeniedBy(reason string, policy types.NamespacedName) bool {
	return strings.HasPrefix(reason, Denied(labelsOf(policy)))
}

// AccessRule matches what all of its fields match.
type AccessRule struct {
	Name string // "": it has none
	// Index in the policy, from 0.
	Index int
	// Sources, one of which must match; nil: everybody, callers without identity included. Sorted, never empty.
	Sources []AccessSource
	// Ports of the destination, sorted; nil: all.
	Ports []uint16
	// Request that it matches; nil: any. Of Application policies only.
	Request *AccessRequest
}

// Label names the rule in its policy: its name, or its index where it has none.
func (r AccessRule) Label() string { return ruleLabel(r.Name, r.Index) }

func ruleLabel(name string, index int) string {
	if name != "" {
		return name
	}
	return strconv.Itoa(index)
}

// AccessSource is a SPIFFE ID, or all that begin with one.
type AccessSource struct {
	Identity string
	// Prefix: Identity ends in "/", and every identity below it matches.
	Prefix bool
}

// Is tells whether a SPIFFE ID is a source; "" is nobody's.
func (s AccessSource) Is(identity string) bool {
	if s.Prefix {
		return strings.HasPrefix(identity, s.Identity)
	}
	return identity == s.Identity
}

// within tells whether all that are s are of another source.
func (s AccessSource) within(of AccessSource) bool {
	return of.Is(s.Identity) && (of.Prefix || !s.Prefix)
}

// overlaps tells whether any that are s are of another source.
func (s AccessSource) overlaps(with AccessSource) bool {
	return with.Is(s.Identity) || s.Is(with.Identity)
}

// AccessRequest matches what all of its fields match; of Methods, Paths, Hosts and GRPC one must, of Headers and Claims
// all. Or it is CEL alone.
type AccessRequest struct {
	Methods []string
	Paths   []StringMatch
	// Hosts in lower case; "*.example.org" is all below.
	Hosts   []string
	Headers []AccessHeader
	GRPC    []AccessGRPC
	Claims  []AccessClaim
	CEL     string
}

// AccessHeader is a header with a value; nil: with any.
type AccessHeader struct {
	Name  string
	Value *StringMatch
}

// AccessGRPC is a method of a gRPC service; Method "": all of them.
type AccessGRPC struct{ Service, Method string }

// AccessClaim is a claim of a verified token with one of the values.
type AccessClaim struct {
	Name   string
	Values []string
}
