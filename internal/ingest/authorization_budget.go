// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What policies may cost. A waypoint's proxies hold them once for each table that has them: a byte of level Application
// is up to 190 there, for it may become a regular expression of all of its spellings. A node's proxy holds the guard of
// each of its pods, ten bytes for one, and it is everybody's.
var (
	// mostOfNetwork and mostOfApplication are what all policies of a level may cost in a namespace, each counted for each
	// port that a waypoint serves by it (portsAimedAt, countPlaces), and once where none does.
	mostOfNetwork     = cost{rules: 16384, expressions: math.MaxInt, bytes: 8 << 20}
	mostOfApplication = cost{rules: 4096, expressions: 256, bytes: 2 << 20}
	// mostOfPod is what the policies of level Network for one pod may cost.
	mostOfPod = cost{rules: math.MaxInt, expressions: math.MaxInt, bytes: 256 << 10}
)

// accessBill is what a policy costs. Where it isn't accepted for another reason, it is next to nothing.
type accessBill struct {
	bill
	application bool
	// once is what it costs where it is once.
	once cost
}

// accessBill is nil where there is no policy.
func (i *Ingest) accessBill(c *memo.Ctx, key cluster.Key) *accessBill {
	o, ok := i.store.Authorization.Get(c, key)
	p := i.accessReadOf.Get(c, key)
	if !ok || p == nil {
		return nil
	}
	out := &accessBill{once: costOfAccess(p.AccessPolicy), application: p.level == v1alpha1.EnforcementLevelApplication}
	out.ref = model.ObjectRef{Kind: kindAuthorization, Namespace: key.Namespace, Name: key.Name}
	out.created = o.CreationTimestamp.Time
	if out.application {
		out.all = out.once.times(max(1, len(i.portsAimedAt(c, key))))
	}
	return out
}

// portsAimedAt are the ports whose tables have a policy of level Application. It asks no Waypoint, for what that sends
// to may depend on policies.
func (i *Ingest) portsAimedAt(c *memo.Ctx, key cluster.Key) (out []model.ServicePort) {
	a := i.aimOf.Get(c, key)
	for _, name := range a.services {
		out = append(out, i.allPorts(c, cluster.Key{Namespace: key.Namespace, Name: name})...)
	}
	for _, name := range a.gateways {
		out = append(out, i.boundPorts(c, cluster.Key{Namespace: key.Namespace, Name: name})...)
	}
	for _, r := range a.routes {
		out = append(out, i.attachedPorts(c, policy.Object{
			GroupKind:      schema.GroupKind{Group: gwv1.GroupName, Kind: r.Kind},
			NamespacedName: cluster.Key{Namespace: r.Namespace, Name: r.Name},
		})...)
	}
	slices.SortFunc(out, model.ServicePort.Compare)
	return slices.Compact(out)
}

// countPlaces sets what policies of level Network cost: each for each kind of pods that it is for and each port that
// leads there by a waypoint, for its table has the guards of all kinds.
func (i *Ingest) countPlaces(c *memo.Ctx, namespace string, bills map[cluster.Key]*accessBill) {
	places := map[cluster.Key]int{}
	for _, k := range i.kindsIn.Get(c, namespace) {
		served := 0
		for _, p := range i.portsOf.Get(c, k) {
			if b := i.Binding.Get(c, p.ServiceName()); !b.unserved() {
				served++
			}
		}
		for _, key := range i.networkAims.Get(c, k) {
			places[key] += served
		}
	}
	for key, b := range bills {
		priced := *b // what is remembered is never changed
		priced.all = b.once.times(max(1, places[key]))
		bills[key] = &priced
	}
}

// costOfAccess is what a policy costs where it is once. One without rules has its name.
func costOfAccess(p model.AccessPolicy) cost {
	const each = 64
	out := cost{rules: max(1, len(p.Rules)), bytes: each}
	for _, r := range p.Rules {
		out.bytes += each + len(r.Name) + 8*len(r.Ports)
		for _, s := range r.Sources {
			out.bytes += len(s.Identity) + 8
		}
		if r.Request != nil {
			out = out.plus(costOfRequest(r.Request))
		}
	}
	return out
}

func costOfRequest(r *model.AccessRequest) (out cost) {
	matches := func(m model.StringMatch) {
		out.bytes += len(m.Value)
		if m.Type == model.MatchRegex {
			out.expressions++
		}
	}
	out.bytes = len(strings.Join(r.Methods, " ")) + len(strings.Join(r.Hosts, " ")) + len(r.CEL)
	if r.CEL != "" {
		out.expressions++
	}
	for _, p := range r.Paths {
		matches(p)
	}
	for _, h := range r.Headers {
		// Proxies match each spelling by itself: eight of them are within what a byte may become.
		for range 1 + len(model.OtherSpellings(h.Name))/8 {
			out.bytes += len(h.Name)
			if h.Value != nil {
				matches(*h.Value)
			}
		}
	}
	for _, g := range r.GRPC {
		out.bytes += len(g.Service) + len(g.Method)
	}
	for _, claim := range r.Claims {
		out.bytes += len(claim.Name) + len(strings.Join(claim.Values, " "))
	}
	return out
}

// tooMuchAccess says which policies of a namespace are too much, and why. The oldest come first.
func (i *Ingest) tooMuchAccess(c *memo.Ctx, namespace string) map[cluster.Key]Verdict {
	if !member.Enrolled(i.namespace(c, namespace)) {
		return nil
	}
	bills := map[cluster.Key]*accessBill{}
	var network, application []*bill
	sum := cost{}
	for _, key := range i.store.Authorization.By(c, cluster.ByNamespace, namespace) {
		switch b := i.accessBillOf.Get(c, key); {
		case b == nil:
		case b.application:
			application = append(application, &b.bill)
		default:
			bills[key], sum = b, sum.plus(b.once)
		}
	}
	i.countPlaces(c, namespace, bills)
	for _, b := range bills {
		network = append(network, &b.bill)
	}
	out := map[cluster.Key]Verdict{}
	all := func(b *bill) cost { return b.all }
	spend(network, all, mostOfNetwork, func(b *bill, older cost) {
		out[keyOf(b)] = overBudget("the AuthorizationPolicies of level Network in a namespace are limited to %d rules and "+
			"%d bytes, each counted for each port that a waypoint serves by it. This one has %d and %d, older ones have %d "+
			"and %d. Use fewer or shorter rules, or several namespaces",
			mostOfNetwork.rules, mostOfNetwork.bytes, b.all.rules, b.all.bytes, older.rules, older.bytes)
	})
	spend(application, all, mostOfApplication, func(b *bill, older cost) {
		out[keyOf(b)] = overBudget("the AuthorizationPolicies of level Application in a namespace are limited to %d rules, "+
			"%d expressions (regular ones and CEL) and %d bytes, each counted for each port that a waypoint serves by it. "+
			"This one has %d, %d and %d, older ones have %d, %d and %d. Use fewer or shorter rules, or several namespaces",
			mostOfApplication.rules, mostOfApplication.expressions, mostOfApplication.bytes, b.all.rules,
			b.all.expressions, b.all.bytes, older.rules, older.expressions, older.bytes)
	})
	if !sum.within(mostOfPod) { // hardly ever
		i.tooMuchForPods(c, namespace, bills, out)
	}
	return out
}

// tooMuchForPods adds to the policies that are too much those that are it for a pod of some kind.
func (i *Ingest) tooMuchForPods(
	c *memo.Ctx, namespace string, bills map[cluster.Key]*accessBill, over map[cluster.Key]Verdict,
) {
	once := func(b *bill) cost { return bills[keyOf(b)].once }
	for _, k := range i.kindsIn.Get(c, namespace) {
		var of []*bill
		for _, key := range i.networkAims.Get(c, k) {
			if _, out := over[key]; !out && bills[key] != nil {
				of = append(of, &bills[key].bill)
			}
		}
		spend(of, once, mostOfPod, func(b *bill, older cost) {
			over[keyOf(b)] = overBudget("the AuthorizationPolicies of level Network for one pod are limited to %d bytes. "+
				"This one has %d, older ones for pods with labels %q have %d. Name whole namespaces as sources (name: \"*\"), "+
				"or target fewer pods", mostOfPod.bytes, once(b).bytes, k.labels, older.bytes)
		})
	}
}

func keyOf(b *bill) cluster.Key { return cluster.Key{Namespace: b.ref.Namespace, Name: b.ref.Name} }

func overBudget(format string, args ...any) Verdict {
	return Verdict{Reason: v1alpha1.PolicyReasonOverBudget, Message: fmt.Sprintf(format, args...)}
}

// accessPolicy is what was read, unless it is too much: then it lets in nobody at all where it was to decide.
func (i *Ingest) accessPolicy(c *memo.Ctx, key cluster.Key) *AccessPolicy {
	p := i.accessReadOf.Get(c, key)
	if p == nil || p.invalid != nil {
		return p
	}
	why, over := i.overAccess.Get(c, key.Namespace)[key]
	if !over {
		return p
	}
	out := *p
	out.invalid, out.Rules = &why, nil
	if ports := p.portsDenied(); p.Deny && (ports == nil || len(ports) > 0) {
		out.Rules = []model.AccessRule{{Ports: ports}}
	}
	return &out
}
