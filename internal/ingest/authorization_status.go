// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// AccessTarget is one targetRef of a policy, and whom it concerns.
type AccessTarget struct {
	// Object that is named; of a Pod or Namespace it has no name.
	policy.Object
	// refused says why the target is none; nil if it is one. Then it concerns nobody.
	refused *Verdict
	// pods whose node proxies carry the policy out, or let in nobody but waypoints that do; the zero podChoice: none.
	pods podChoice
	// requests are the ports of Services at which requests are decided on because of it, sorted; of a policy of level
	// Network none.
	requests []model.ServicePort
	// opaque are those of requests that carry no requests, as far as is known: there, pods let nobody in, unless the
	// policy is only tried.
	opaque []model.ServicePort
	// unserved are those of requests that no waypoint serves, though they carry requests.
	unserved []model.ServicePort
	// waypoints that carry the policy out, sorted.
	waypoints []GuardingWaypoint
}

func (i *Ingest) accessTargets(c *memo.Ctx, key cluster.Key) []AccessTarget {
	p, ok := i.store.Authorization.Get(c, key)
	if !ok {
		return nil
	}
	var out []AccessTarget
	for n := range p.Spec.TargetRefs {
		out = append(out, i.accessTarget(c, p, &p.Spec.TargetRefs[n]))
	}
	return out
}

func (i *Ingest) accessTarget(
	c *memo.Ctx, p *v1alpha1.AuthorizationPolicy, t *v1alpha1.AuthorizationTarget,
) AccessTarget {
	out := AccessTarget{}
	out.Group, out.Kind, out.Namespace, out.Name = string(t.Group), string(t.Kind), p.Namespace, string(t.Name)
	application := p.Spec.EnforcementLevel == v1alpha1.EnforcementLevelApplication
	if out.refused = i.refusedTarget(c, out.Object, application); out.refused != nil {
		return out
	}
	var selector labels.Selector // of pods that it is for as a whole
	var ports []model.ServicePort
	switch {
	case t.Kind == kindPod, t.Kind == kindNamespace:
		var err error
		if selector, err = podSelector(t); err != nil {
			selector = labels.Everything()
		}
		out.pods = podChoice{namespace: p.Namespace, labelled: true, selector: selector.String()}
	case out.GroupKind == policy.Service:
		ports = i.allPorts(c, out.NamespacedName)
	case out.GroupKind == policy.Gateway:
		ports = i.boundPorts(c, out.NamespacedName)
	default:
		ports = i.attachedPorts(c, out.Object)
	}
	if a := i.aimOf.Get(c, cluster.Key{Namespace: p.Namespace, Name: p.Name}); application && a.ports != nil {
		ports = slices.DeleteFunc(ports, func(p model.ServicePort) bool { return !slices.Contains(a.ports, p.Port) })
	}
	switch {
	case !application:
		i.concerned(c, &out, selector, ports)
	case isRoute(out.Kind):
		i.concernedRequests(c, &out, ports)
		for n := range out.waypoints { // another route's rules say nothing of it
			out.waypoints[n].Tables = slices.DeleteFunc(out.waypoints[n].Tables, func(t model.ServicePort) bool {
				return !slices.Contains(ports, t)
			})
		}
		out.waypoints = slices.DeleteFunc(out.waypoints, func(w GuardingWaypoint) bool { return len(w.Tables) == 0 })
	default:
		i.concernedRequests(c, &out, ports)
	}
	if application && p.Spec.DryRun {
		out.pods = podChoice{} // they know nothing of requests that are only tried
	}
	return out
}

func isRoute(kind string) bool { return kind == KindHTTPRoute || kind == kindGRPCRoute }

// refusedTarget says why an object can't be targeted; nil if it can.
func (i *Ingest) refusedTarget(c *memo.Ctx, o policy.Object, application bool) *Verdict {
	notFound := func(format string, args ...any) *Verdict {
		return &Verdict{Reason: string(gwv1.PolicyReasonTargetNotFound), Message: fmt.Sprintf(format, args...)}
	}
	pods := o.Group == "" && (o.Kind == kindPod || o.Kind == kindNamespace)
	switch {
	case !member.Enrolled(i.namespace(c, o.Namespace)):
		return &Verdict{Reason: v1alpha1.EntryReasonNotEnrolled, Message: fmt.Sprintf(
			"namespace %s is not in the mesh: label it %s=%s", o.Namespace, names.LabelMesh, names.MeshEnabled)}
	case pods && !application:
		return nil
	case o.GroupKind == policy.Service:
		if i.Service.Get(c, o.NamespacedName) == nil {
			return notFound("%s does not exist", o)
		}
		return nil
	case o.GroupKind == policy.Gateway && application:
		if i.gateway(c, o.NamespacedName) == nil {
			return notFound("%s does not exist, or is no waypoint", o)
		}
		return nil
	case o.Group == gwv1.GroupName && isRoute(o.Kind) && application:
		switch r := i.Route.Get(c, model.ObjectRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}); {
		case r == nil:
			return notFound("%s does not exist", o)
		case !slices.ContainsFunc(r.parents, func(p parent) bool { return len(p.attachments) > 0 }):
			return notFound("%s is attached to no Service", o)
		}
		return nil
	}
	level := v1alpha1.EnforcementLevelNetwork
	if application {
		level = v1alpha1.EnforcementLevelApplication
	}
	return &Verdict{
		Reason:  string(gwv1.PolicyReasonInvalid),
		Message: fmt.Sprintf("a policy of level %s can't target a %s", level, o.Kind),
	}
}

// likePods are the pods of a namespace with the same labels, of those that anybody asks for.
type likePods struct{ namespace, labels string }

// meant are the labels of a pod that policies may be for; ok is false for one of the mesh's own, and for one that is
// gone.
type meant struct {
	likePods
	ok bool
}

func (i *Ingest) meant(c *memo.Ctx, key cluster.Key) meant {
	pod, ok := i.store.Pods.Get(c, key)
	if !ok || member.Finished(pod) || member.Waypoint(pod) {
		return meant{}
	}
	return meant{likePods{key.Namespace, i.labelsAsked(c, pod)}, true}
}

// podsMeant are the pods of a namespace that policies may be for, sorted. It is gone through once for all policies.
func (i *Ingest) podsMeant(c *memo.Ctx, namespace string) map[likePods][]cluster.Key {
	out := map[likePods][]cluster.Key{}
	for _, key := range i.store.Pods.By(c, cluster.ByNamespace, namespace) {
		if m := i.meantOf.Get(c, key); m.ok {
			out[m.likePods] = append(out[m.likePods], key)
		}
	}
	return out
}

func (i *Ingest) groupsMeant(c *memo.Ctx, namespace string) []likePods {
	return slices.SortedFunc(maps.Keys(i.meantIn.Get(c, namespace)), func(a, b likePods) int {
		return cmp.Compare(a.labels, b.labels)
	})
}

func (i *Ingest) groupMeant(c *memo.Ctx, group likePods) []cluster.Key {
	return i.meantIn.Get(c, group.namespace)[group]
}

func (i *Ingest) podsWhere(c *memo.Ctx, namespace string, is func(labels.Set) bool) []cluster.Key {
	var out []cluster.Key
	for _, group := range i.groupsIn.Get(c, namespace) {
		if is(setOf(group.labels)) {
			out = append(out, i.likeOf.Get(c, group)...)
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// podsOfService are its pods, members of the mesh or not, sorted.
func (i *Ingest) podsOfService(c *memo.Ctx, svc cluster.Key) []cluster.Key {
	for _, s := range i.selecting.Get(c, svc.Namespace) {
		switch {
		case s.service != svc:
		case s.lists():
			return i.listed.Get(c, svc)
		default:
			return i.podsWhere(c, svc.Namespace, func(set labels.Set) bool { return s.selects(set) })
		}
	}
	return nil
}

func (i *Ingest) allPorts(c *memo.Ctx, key cluster.Key) (out []model.ServicePort) {
	if svc := i.Service.Get(c, key); svc != nil {
		for _, p := range svc.Ports {
			out = append(out, svc.Attachment(p).Port)
		}
	}
	return out
}

// boundPorts are those of the Services that a policy is for because of their waypoint.
func (i *Ingest) boundPorts(c *memo.Ctx, gateway cluster.Key) (out []model.ServicePort) {
	for _, svc := range i.store.Services.By(c, cluster.ByNamespace, gateway.Namespace) {
		direct := len(i.requested.Get(c, svc)) > 0 || len(i.authenticated.Get(c, svc)) > 0
		if i.askedWaypoint(c, svc, direct) == gateway.Name {
			out = append(out, i.allPorts(c, svc)...)
		}
	}
	return out
}

// attachedPorts are the ports that a route asks for, sorted.
func (i *Ingest) attachedPorts(c *memo.Ctx, o policy.Object) (out []model.ServicePort) {
	r := i.Route.Get(c, model.ObjectRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name})
	if r == nil {
		return nil
	}
	for _, p := range r.parents {
		for _, at := range p.attachments {
			out = append(out, at.Port)
		}
	}
	slices.SortFunc(out, model.ServicePort.Compare)
	return slices.Compact(out)
}

// concerned adds the pods that a policy is for, as a whole or at ports of Services, and the waypoints that send there.
// It asks kinds of pods, of which there are few.
func (i *Ingest) concerned(c *memo.Ctx, out *AccessTarget, selector labels.Selector, ports []model.ServicePort) {
	reached := slices.Clone(ports)
	if selector != nil {
		for _, k := range i.kindsIn.Get(c, out.Namespace) {
			if !selector.Matches(k.set()) {
				continue
			}
			for _, p := range i.portsOf.Get(c, k) {
				reached = append(reached, p.ServicePort)
			}
		}
		if selector.Empty() {
			reached = append(reached, i.waysOut.Get(c, out.Namespace)...)
		}
	} else {
		out.pods = servicesChoice(out.Object, ports)
	}
	for n, p := range ports {
		if n > 0 && ports[n-1].ServiceName() == p.ServiceName() {
			continue
		}
		for _, k := range i.behindOf.Get(c, p.ServiceName()) {
			reached = append(reached, i.alsoAt(c, k, ports)...)
		}
	}
	slices.SortFunc(reached, model.ServicePort.Compare)
	out.waypoints = i.waypointsTo(c, slices.Compact(reached))
}

// alsoAt are ports of all Services that lead to where the ports do, on pods of a kind.
func (i *Ingest) alsoAt(c *memo.Ctx, k PodKind, ports []model.ServicePort) (out []model.ServicePort) {
	all := i.portsOf.Get(c, k)
	var targets []uint16
	for _, p := range all {
		if slices.Contains(ports, p.ServicePort) {
			targets = append(targets, p.target)
		}
	}
	for _, p := range all {
		if slices.Contains(targets, p.target) {
			out = append(out, p.ServicePort)
		}
	}
	return out
}

// concernedRequests is the same for a policy that decides on requests to ports of Services.
func (i *Ingest) concernedRequests(c *memo.Ctx, out *AccessTarget, ports []model.ServicePort) {
	i.concerned(c, out, nil, ports)
	out.requests = ports
	for _, p := range ports {
		b := i.Binding.Get(c, p.ServiceName())
		switch {
		case !i.protocolOf.Get(c, model.Attachment{Port: p}).HTTP():
			out.opaque = append(out.opaque, p)
		case b.unserved() || b.Problem != "":
			out.unserved = append(out.unserved, p)
		}
	}
}

// waypointsTo are the waypoints that send to any of some ports, sorted, with the tables by which they do.
func (i *Ingest) waypointsTo(c *memo.Ctx, ports []model.ServicePort) []GuardingWaypoint {
	of := map[cluster.Key]*GuardingWaypoint{}
	for _, p := range ports {
		for _, s := range i.sendersTo.Get(c, p) {
			if of[s.gateway] == nil {
				of[s.gateway] = &GuardingWaypoint{Gateway: s.gateway}
			}
			of[s.gateway].TCP = of[s.gateway].TCP || s.tcp
		}
	}
	var out []GuardingWaypoint
	for gateway, w := range of {
		for _, p := range i.Waypoint.Get(c, gateway).Ports {
			if p.Protocol.HTTP() && i.leadsTo(c, p.ServicePort, ports) {
				w.Tables = append(w.Tables, p.ServicePort)
			}
		}
		if w.TCP || len(w.Tables) > 0 {
			out = append(out, *w)
		}
	}
	slices.SortFunc(out, func(a, b GuardingWaypoint) int { return byName(a.Gateway, b.Gateway) })
	return out
}

// leadsTo tells whether the table of a port sends requests to any of some ports, or is one of them.
func (i *Ingest) leadsTo(c *memo.Ctx, at model.ServicePort, ports []model.ServicePort) bool {
	if slices.Contains(ports, at) {
		return true
	}
	return slices.ContainsFunc(i.leads.Get(c, model.Attachment{Port: at}).backends,
		func(b model.ServicePort) bool { return slices.Contains(ports, b) })
}
