// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package translatetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
)

// Caller connects to a port of a pod; without identity in plain text.
type Caller struct {
	Identity string
	Port     uint16
}

// LetIn is what model.PodGuard says, in the plainest words; tried: with the policies that are tried only.
func LetIn(g model.PodGuard, c Caller, tried bool) bool {
	for _, w := range g.Waypoints {
		if w.Port == c.Port && w.Waypoint == c.Identity && c.Identity != "" {
			return true
		}
	}
	return !slices.Contains(g.Only, c.Port) && GuardLetsIn(g.Guard, c, tried)
}

// GuardLetsIn is likewise what model.Guard says.
func GuardLetsIn(g model.Guard, c Caller, tried bool) bool {
	return levelLetsIn(g.Network, g.DefaultDeny, c, tried) && levelLetsIn(g.Application, false, c, tried)
}

func levelLetsIn(policies []model.AccessPolicy, mustMatch bool, c Caller, tried bool) bool {
	allowed := false
	for _, p := range policies {
		switch {
		case p.DryRun && !tried, p.Ports != nil && !slices.Contains(p.Ports, c.Port):
			continue
		case p.Deny && anyMatches(p, c):
			return false
		case !p.Deny:
			mustMatch = true
			allowed = allowed || anyMatches(p, c)
		}
	}
	return allowed || !mustMatch
}

func anyMatches(p model.AccessPolicy, c Caller) bool {
	return slices.ContainsFunc(p.Rules, func(r model.AccessRule) bool {
		from := func(s model.AccessSource) bool {
			return c.Identity != "" && (s.Identity == c.Identity || s.Prefix && strings.HasPrefix(c.Identity, s.Identity))
		}
		return r.Request == nil && (r.Ports == nil || slices.Contains(r.Ports, c.Port)) &&
			(r.Sources == nil || slices.ContainsFunc(r.Sources, from))
	})
}

// Guards makes guards at random, and callers whom they are about.
type Guards struct {
	Rand       *rand.Rand
	Identities []string
	Ports      []uint16
	// Strangers are sources beside the identities, so that lists are long now and then.
	Strangers int
}

// Pod is a guard of a pod.
func (g Guards) Pod() model.PodGuard {
	out := model.PodGuard{Guard: g.Guard()}
	out.Application = nil
	if g.one(3) {
		out.Only = someOf(g.Rand, g.Ports)
		slices.Sort(out.Only)
	}
	if g.one(3) {
		for _, port := range someOf(g.Rand, g.Ports) {
			out.Waypoints = append(out.Waypoints, model.GuardedPort{Port: port, Waypoint: g.identity()})
		}
	}
	return out
}

// Guard is a guard of connections.
func (g Guards) Guard() model.Guard {
	out := model.Guard{DefaultDeny: g.one(5)}
	most := 4
	if g.one(20) {
		most = 50
	}
	for range g.Rand.IntN(most) {
		out.Network = append(out.Network, g.policy(len(out.Network)))
	}
	for range g.Rand.IntN(3) {
		out.Application = append(out.Application, g.policy(len(out.Application)))
	}
	return out
}

// Caller is one that may be anybody.
func (g Guards) Caller() Caller {
	c := Caller{Port: g.Ports[g.Rand.IntN(len(g.Ports))]}
	if !g.one(4) {
		c.Identity = g.identity()
	}
	return c
}

func (g Guards) policy(n int) model.AccessPolicy {
	p := model.AccessPolicy{
		Name: types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("policy-", n)}, Deny: g.one(2), DryRun: g.one(4),
	}
	if g.one(3) {
		p.Ports = someOf(g.Rand, g.Ports)
	}
	for n := range g.Rand.IntN(4) {
		r := model.AccessRule{Index: n, Ports: p.Ports}
		if g.one(2) {
			r.Name = "it's 100%) \\ \"" + fmt.Sprint(n)
		}
		if g.one(2) {
			if r.Ports = someOf(g.Rand, g.Ports); p.Ports != nil {
				r.Ports = someOf(g.Rand, p.Ports)
			}
		}
		if !g.one(3) {
			r.Sources = g.sources()
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func (g Guards) sources() (out []model.AccessSource) {
	for _, id := range someOf(g.Rand, g.Identities) {
		if cut := strings.LastIndex(id, "/") + 1; g.one(4) {
			out = append(out, model.AccessSource{Identity: id[:cut], Prefix: true})
		} else {
			out = append(out, model.AccessSource{Identity: id})
		}
	}
	if g.one(10) {
		for n := range g.Strangers {
			out = append(out, model.AccessSource{Identity: fmt.Sprintf("spiffe://cluster.local/ns/else/sa/stranger-%d", n)})
		}
	}
	return out
}

func (g Guards) identity() string { return g.Identities[g.Rand.IntN(len(g.Identities))] }

// one in n times.
func (g Guards) one(n int) bool { return g.Rand.IntN(n) == 0 }

// someOf a list, at least one.
func someOf[T any](r *rand.Rand, all []T) []T {
	out := slices.Clone(all)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:1+r.IntN(len(out))]
}
