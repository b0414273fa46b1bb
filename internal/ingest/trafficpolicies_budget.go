// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"math"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// mostOfTraffic is what the TrafficPolicies of a namespace may cost, each counted for each port that it names: so often
// it is in a table and in clusters, whatever it says.
var mostOfTraffic = cost{rules: math.MaxInt, expressions: math.MaxInt, bytes: 8 << 20}

// trafficBill is nil where there is no policy.
func (i *Ingest) trafficBill(c *memo.Ctx, key cluster.Key) *bill {
	o, ok := i.store.TrafficPolicies.Get(c, key)
	if !ok {
		return nil
	}
	out := &bill{created: o.CreationTimestamp.Time}
	out.ref = model.ObjectRef{Kind: cluster.NameOf(o), Namespace: key.Namespace, Name: key.Name}
	ports := 0
	for _, t := range o.Spec.TargetRefs {
		of := i.allPorts(c, cluster.Key{Namespace: key.Namespace, Name: string(t.Name)})
		if t.SectionName != nil {
			of = of[:min(len(of), 1)]
		}
		ports += len(of)
	}
	out.all = cost{bytes: bytesOfTraffic(o.Spec)}.times(max(1, ports))
	return out
}

// bytesOfTraffic are those that a policy adds to a port: of the filters that it asks for, and the texts in it.
func bytesOfTraffic(s v1alpha1.TrafficPolicySpec) int {
	const itself, filter, entry = 256, 256, 64
	n := itself
	if l := s.LoadBalancing; l != nil && l.HashBy != nil {
		if l.HashBy.Cookie != nil {
			n += len(l.HashBy.Cookie.Name)
		}
		if l.HashBy.Header != nil {
			n += len(l.HashBy.Header.Name)
		}
	}
	if r := s.RateLimit; r != nil {
		n += filter
		if r.Global != nil {
			n += 3*filter + len(r.Global.Domain) // two watch over the service
			for _, d := range r.Global.Descriptors {
				for _, e := range d.Entries {
					n += entry + len(e.Key) + len(deref(e.Header)) + len(deref(e.Value))
				}
			}
		}
	}
	if s.Faults != nil {
		n += filter
	}
	if s.Buffering != nil {
		n += 2 * filter
	}
	if s.Compression != nil {
		n += filter * len(s.Compression.Algorithms)
	}
	return n
}

// tooMuchTraffic says which policies of a namespace are too much, and why. The oldest come first.
func (i *Ingest) tooMuchTraffic(c *memo.Ctx, namespace string) map[cluster.Key]Verdict {
	var bills []*bill
	for _, key := range i.store.TrafficPolicies.By(c, cluster.ByNamespace, namespace) {
		if b := i.trafficBillOf.Get(c, key); b != nil {
			bills = append(bills, b)
		}
	}
	out := map[cluster.Key]Verdict{}
	spend(bills, func(b *bill) cost { return b.all }, mostOfTraffic, func(b *bill, older cost) {
		out[keyOf(b)] = overBudget("nothing of the policy is in force: the TrafficPolicies of a namespace are limited to %d "+
			"bytes, each counted for each port of the Services that it names. This one has %d, older ones have %d. Use fewer "+
			"descriptors of rateLimit.global, name fewer ports, or use several namespaces",
			mostOfTraffic.bytes, b.all.bytes, older.bytes)
	})
	return out
}

// affordableTraffic has a policy that is too much ask for nothing. It keeps its targets, so that no younger one gets
// them.
func (i *Ingest) affordableTraffic(c *memo.Ctx, o *v1alpha1.TrafficPolicy, out *policy.Policy[trafficPolicy]) {
	key := cluster.Key{Namespace: o.Namespace, Name: o.Name}
	if why, over := i.overTraffic.Get(c, o.Namespace)[key]; over {
		out.Content, out.Invalid, out.Reason = trafficPolicy{}, why.Message, v1alpha1.PolicyReasonOverBudget
	}
}
