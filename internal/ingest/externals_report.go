// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// MostExternalsOfNamespace is how many XBackends the routes of a namespace may lead to, the oldest ones: each is a
// cluster of the namespace's waypoints, and a name that these look up.
const MostExternalsOfNamespace = 256

func policyXBackend(key cluster.Key) policy.Object {
	return policy.Object{
		GroupKind: schema.GroupKind{Group: gwxv1alpha1.GroupName, Kind: cluster.KindXBackend}, NamespacedName: key,
	}
}

// tooManyExternals are those that a namespace's routes can't have any more; the oldest come first.
func (i *Ingest) tooManyExternals(c *memo.Ctx, namespace string) map[cluster.Key]string {
	var all []*External
	seen := map[cluster.Key]bool{}
	for _, ref := range i.routesBy(c, cluster.ByNamespace, namespace) {
		for _, key := range i.xbackendsOf(c, ref) {
			if e := i.External.Get(c, key); !seen[key] && e != nil && e.refused == nil {
				all = append(all, e)
			}
			seen[key] = true
		}
	}
	slices.SortFunc(all, func(a, b *External) int {
		return cmp.Or(a.created.Compare(b.created), byName(a.Name, b.Name))
	})
	var out map[cluster.Key]string
	number, bytes := 0, 0
	for _, e := range all {
		costs := 0
		if e.TLS != nil {
			costs = len(e.TLS.CAs)
		}
		if number < MostExternalsOfNamespace && bytes+costs <= MostCABytesOfNamespace {
			number, bytes = number+1, bytes+costs
			continue
		}
		if out == nil {
			out = map[cluster.Key]string{}
		}
		out[e.Name] = fmt.Sprintf("the routes of a namespace are limited to %d XBackends with %d MiB of certificates in "+
			"total, and older ones that routes of namespace %s lead to have that: use fewer of them, or several namespaces",
			MostExternalsOfNamespace, MostCABytesOfNamespace>>20, namespace)
	}
	return out
}

// xbackendsOf a route, whether it may use them or not.
func (i *Ingest) xbackendsOf(c *memo.Ctx, ref model.ObjectRef) []cluster.Key {
	key := cluster.Key{Namespace: ref.Namespace, Name: ref.Name}
	var route client.Object
	switch ref.Kind {
	case KindHTTPRoute:
		if r, ok := i.store.HTTPRoutes.Get(c, key); ok {
			route = r
		}
	case kindGRPCRoute:
		if r, ok := i.store.GRPCRoutes.Get(c, key); ok {
			route = r
		}
	}
	return cluster.XBackends(route)
}

// externalReport says of an XBackend what it is for each Service whose requests leave by it. Nobody else's routes make
// a difference: those that may not use it, and those that attach to nothing.
func (i *Ingest) externalReport(c *memo.Ctx, key cluster.Key) *Report {
	e := i.External.Get(c, key)
	if e == nil {
		return nil
	}
	out := &Report{
		Ref: model.ObjectRef{Kind: cluster.KindXBackend, Namespace: key.Namespace, Name: key.Name},
		UID: e.uid, Generation: e.generation,
	}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	leads := map[cluster.Key]bool{} // by Service
	for _, ref := range i.routesBy(c, cluster.ByBackend, key.String()) {
		r := i.Route.Get(c, ref)
		if r == nil || !slices.Contains(r.externals, key) {
			continue
		}
		for _, p := range r.parents {
			if len(i.attachedBy(c, r, p)) > 0 {
				leads[p.service] = leads[p.service] || slices.ContainsFunc(ruleExternals(r.Rules),
					func(h *model.ExternalHost) bool { return h.Name == key })
			}
		}
	}
	for _, svc := range sortedKeys(slices.Collect(maps.Keys(leads))) {
		out.Parents = append(out.Parents, i.externalFor(c, e, svc, leads[svc]))
	}
	return out
}

// attachedBy are the ports that a route has of a parent.
func (i *Ingest) attachedBy(c *memo.Ctx, r *Route, p parent) []model.Attachment {
	if _, over := i.over(c, r.ref, p.service.Namespace); over || p.refused != nil || p.service.Name == "" {
		return nil
	}
	has, _ := i.outcome(c, r, p)
	return has
}

// externalFor is what the status says of a Service whose requests leave by an XBackend, or would if more than that were
// right with its routes.
func (i *Ingest) externalFor(c *memo.Ctx, e *External, svc cluster.Key, leads bool) ParentReport {
	out := ParentReport{Ref: accessAncestor(policy.Object{GroupKind: policy.Service, NamespacedName: svc})}
	refused := e.refused
	if over := i.overExternals.Get(c, svc.Namespace)[e.Name]; over != "" && refused == nil {
		refused = &Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: over}
	}
	good := "Requests leave for the host"
	if e.TLS == nil {
		good = "Requests leave for the host in plain text: nothing proves who answers, and whoever is between reads them"
	}
	out.Conditions = append(out.Conditions,
		conditions.Judged(string(gwv1.PolicyConditionAccepted), refused, string(gwv1.PolicyReasonAccepted), good,
			e.generation),
		conditions.Judged(string(gwv1.BackendTLSPolicyConditionResolvedRefs), e.unresolved,
			string(gwv1.BackendTLSPolicyReasonResolvedRefs), "All references were found", e.generation))
	switch {
	case refused != nil:
		out.Unprogrammed = &Verdict{Reason: refused.Reason, Message: "Requests that would leave by it get an error"}
		return out
	case !leads:
		out.Unprogrammed = &Verdict{Reason: v1alpha1.XBackendReasonNotUsed, Message: fmt.Sprintf(
			"No request leaves by it: see the conditions of the routes of Service %s that name it", svc)}
		return out
	}
	if out.Unprogrammed = i.unserved(c, svc, "no waypoint serves the Service"); out.Unprogrammed == nil {
		b := i.Binding.Get(c, svc)
		i.leadTo(c, b, &out)
		out.Clusters = []string{names.External(e.Name.Namespace, e.Name.Name, e.Version)}
	}
	return out
}

// notOutside are the cluster's own ranges besides those that never are outside.
func (i *Ingest) notOutside(c *memo.Ctx, _ struct{}) []netip.Prefix {
	var own, allowed []netip.Prefix
	if m, ok := i.store.Meshes.Get(c, cluster.Key{Name: names.Mesh}); ok {
		if n := m.Spec.Network; n != nil {
			own = append(own, prefixes(n.PodCIDRs)...)
			own = append(own, prefixes(n.ServiceCIDRs)...)
		}
		if n := m.Status.Network; n != nil {
			own = append(own, prefixes(n.PodCIDRs)...)
			own = append(own, prefixes(n.ServiceCIDRs)...)
		}
		if x := m.Spec.ExternalBackends; x != nil {
			allowed = prefixes(x.AllowedCIDRs)
		}
	}
	for _, key := range i.store.Nodes.By(c, cluster.ByNamespace, "") {
		n, ok := i.store.Nodes.Get(c, key)
		if !ok {
			continue
		}
		own = append(own, prefixes(n.Spec.PodCIDRs)...)
		for _, a := range n.Status.Addresses {
			if at, err := netip.ParseAddr(a.Address); err == nil { // others are names
				own = append(own, netip.PrefixFrom(at.Unmap(), at.Unmap().BitLen()))
			}
		}
	}
	return RefusedRanges(own, allowed)
}
