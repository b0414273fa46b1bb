// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// aim is what a policy is for, without its rules. It is never changed, and the same as long as nothing of it changes.
type aim struct {
	policy      cluster.Key
	application bool
	dryRun      bool
	// ports that it makes a difference at, sorted, as its rules name them; nil: all.
	ports []uint16
	// pods that any of these selects.
	pods []labels.Selector
	// services, routes and gateways by name, each sorted.
	services []string
	routes   []model.ObjectRef
	gateways []string
}

func (i *Ingest) aim(c *memo.Ctx, key cluster.Key) *aim {
	p, ok := i.store.Authorization.Get(c, key)
	if !ok {
		return nil
	}
	out := &aim{
		policy: key, application: p.Spec.EnforcementLevel == v1alpha1.EnforcementLevelApplication, dryRun: p.Spec.DryRun,
		ports: i.accessReadOf.Get(c, key).portsDenied(),
	}
	for n := range p.Spec.TargetRefs {
		t := &p.Spec.TargetRefs[n]
		switch {
		case t.Kind == kindPod, t.Kind == kindNamespace:
			selector, err := podSelector(t)
			if err != nil { // whom it is meant for can't be known
				selector = labels.Everything()
			}
			out.pods = append(out.pods, selector)
		case isTarget(t, policy.Service.Group, policy.Service.Kind):
			out.services = append(out.services, string(t.Name))
		case isTarget(t, policy.Gateway.Group, policy.Gateway.Kind):
			out.gateways = append(out.gateways, string(t.Name))
		case isTarget(t, gwv1.GroupName, KindHTTPRoute), isTarget(t, gwv1.GroupName, kindGRPCRoute):
			out.routes = append(out.routes,
				model.ObjectRef{Kind: string(t.Kind), Namespace: key.Namespace, Name: string(t.Name)})
		}
	}
	return out
}

// means tells whether a policy is for a pod as a whole.
func (a *aim) means(pod labels.Set) bool {
	return slices.ContainsFunc(a.pods, func(s labels.Selector) bool { return s.Matches(pod) })
}

// wholeNamespace tells whether a policy is for all pods of its namespace, whatever their labels.
func (a *aim) wholeNamespace() bool {
	return slices.ContainsFunc(a.pods, labels.Selector.Empty)
}

// portsDenied are those that the rules of a DENY policy name; nil: it makes a difference at all ports.
func (p *AccessPolicy) portsDenied() []uint16 {
	if !p.Deny {
		return nil
	}
	out := []uint16{}
	for _, r := range p.Rules {
		if r.Ports == nil {
			return nil
		}
		out = append(out, r.Ports...)
	}
	return sortedPorts(out)
}

// Kinds of targets that no other policy has.
const (
	kindPod       = "Pod"
	kindNamespace = "Namespace"
)

func isTarget(t *v1alpha1.AuthorizationTarget, group, kind string) bool {
	return string(t.Group) == group && string(t.Kind) == kind
}

// podSelector of a target of kind Pod; of the whole namespace all of its pods. Nothing of any other.
func podSelector(t *v1alpha1.AuthorizationTarget) (labels.Selector, error) {
	switch t.Kind {
	case kindNamespace:
		return labels.Everything(), nil
	case kindPod:
		return metav1.LabelSelectorAsSelector(t.Selector)
	}
	return labels.Nothing(), nil
}

// aims are those of all policies of a namespace in the mesh, sorted by name. Most namespaces have none, so this is
// asked first.
func (i *Ingest) aims(c *memo.Ctx, namespace string) []*aim {
	if !member.Enrolled(i.namespace(c, namespace)) {
		return nil
	}
	var out []*aim
	for _, key := range i.store.Authorization.By(c, cluster.ByNamespace, namespace) {
		if a := i.aimOf.Get(c, key); a != nil {
			out = append(out, a)
		}
	}
	return out
}

// requests tells whether requests are to be decided on anywhere in a namespace.
func (i *Ingest) requests(c *memo.Ctx, namespace string) bool {
	return i.authenticates(c, namespace) ||
		slices.ContainsFunc(i.aimsIn.Get(c, namespace), func(a *aim) bool { return a.application })
}

// requested is a policy of level Application, as it is for a Service: whoever asks for that.
type requested struct {
	policy cluster.Key
	dryRun bool
	// ports of the Service that it is for, sorted; nil: all.
	ports []uint16
	// route: it is for the rules of a route only, which is another's to decide on.
	route bool
}

func (r requested) at(port uint16) bool { return r.ports == nil || slices.Contains(r.ports, port) }

// requestedAt are the policies of level Application that are for a Service, by policy: of the Service itself, of routes
// of its namespace, and of the waypoint that it is bound to. It asks no Binding, for that depends on this.
func (i *Ingest) requestedAt(c *memo.Ctx, svc cluster.Key) []requested {
	var out []requested
	var gateways []*aim
	for _, a := range i.aimsIn.Get(c, svc.Namespace) {
		if !a.application {
			continue
		}
		if slices.Contains(a.services, svc.Name) {
			out = append(out, requested{policy: a.policy, dryRun: a.dryRun, ports: a.ports})
		} else if len(a.gateways) > 0 {
			gateways = append(gateways, a)
		}
		ports := i.routedPorts(c, a.routes, svc)
		if a.ports != nil {
			ports = slices.DeleteFunc(ports, func(p uint16) bool { return !slices.Contains(a.ports, p) })
		}
		if len(ports) > 0 {
			out = append(out, requested{policy: a.policy, dryRun: a.dryRun, ports: ports, route: true})
		}
	}
	if len(gateways) > 0 {
		gateway := i.askedWaypoint(c, svc, len(out) > 0 || len(i.authenticated.Get(c, svc)) > 0)
		for _, a := range gateways {
			if gateway != "" && slices.Contains(a.gateways, gateway) {
				out = append(out, requested{policy: a.policy, dryRun: a.dryRun, ports: a.ports})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b requested) int { return byName(a.policy, b.policy) })
	return out
}

// routedPorts are the ports of a Service that routes ask for, sorted.
func (i *Ingest) routedPorts(c *memo.Ctx, routes []model.ObjectRef, svc cluster.Key) (out []uint16) {
	for _, ref := range routes {
		r := i.Route.Get(c, ref)
		if r == nil {
			continue
		}
		for _, p := range r.parents {
			for _, at := range p.attachments {
				if at.Port.ServiceName() == svc {
					out = append(out, at.Port.Port)
				}
			}
		}
	}
	return sortedPorts(out)
}

// askedWaypoint names the Gateway that serves a Service, or is to: by a label, or because there are routes for it or
// policies.
func (i *Ingest) askedWaypoint(c *memo.Ctx, key cluster.Key, policies bool) string {
	svc, use := i.Service.Get(c, key), i.useWaypoint(c, key)
	if svc == nil || use.None() || i.unservable(c, svc) != "" {
		return ""
	}
	routed := func() bool {
		return slices.ContainsFunc(i.attached.Get(c, key), func(r attached) bool {
			return slices.Contains(r.services, key)
		})
	}
	if use.Automatic() && !policies && !routed() {
		return ""
	}
	return use.Gateway()
}
