// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// policyKind is a kind of policies for Services: what there is to say of one. All else is the same for all of them.
type policyKind[O client.Object, T any] struct {
	in *cluster.Collection[O]
	// read says what a policy asks for, and why that can't be carried out; "" if it can.
	read func(c *memo.Ctx, o O) (content T, invalid string)
	// needs says which proxies must have acknowledged what, before a policy that is in force at ports of one Service is
	// Programmed there.
	needs func(c *memo.Ctx, at []model.Attachment) ParentReport
	// guards: its condition is Enforced, not Programmed.
	guards bool
	// besides adds what else there is to say of a policy; nil: nothing.
	besides func(c *memo.Ctx, o O, out *policy.Policy[T])
	// ports are those of a Service that the kind may be in force for; portsAsTargets if nil.
	ports policy.Find
}

// definePolicies has a kind of policies decided on, and reported on by Ingest.Report.
func definePolicies[O client.Object, T any](g *memo.Graph, i *Ingest, k policyKind[O, T]) *policy.Policies[T] {
	var none O
	kind := cluster.NameOf(none)
	if k.ports == nil {
		k.ports = i.portsAsTargets
	}
	all := policy.Define(g, policy.Kind[T]{
		Name: kind,
		Get: func(c *memo.Ctx, name cluster.Key) *policy.Policy[T] {
			o, ok := k.in.Get(c, name)
			if !ok {
				return nil
			}
			out := &policy.Policy[T]{
				Ref: model.ObjectRef{Kind: kind, Namespace: name.Namespace, Name: name.Name}, UID: o.GetUID(),
				Generation: o.GetGeneration(), Created: o.GetCreationTimestamp().Time, Taken: cluster.TakenByOthers(o),
			}
			if p, isPolicy := cluster.PolicyOf(o); isPolicy {
				for _, t := range p.Targets() {
					out.Targets = append(out.Targets, policy.LocalSection(name.Namespace, t))
				}
			}
			out.Content, out.Invalid = k.read(c, o)
			if k.besides != nil {
				k.besides(c, o, out)
			}
			return out
		},
		Naming: func(c *memo.Ctx, o policy.Object) []cluster.Key {
			return k.in.By(c, cluster.ByTarget, cluster.TargetValue(o.GroupKind, o.NamespacedName))
		},
		Targets: map[schema.GroupKind]policy.Find{policy.Service: k.ports},
	})
	i.policyReports[kind] = func(c *memo.Ctx, key cluster.Key) *Report {
		return i.policyReport(c, all.Report.Get(c, key), k.needs, k.guards)
	}
	return all
}

// portsAsTargets are the ports of a Service, as what policies can be in force for.
func (i *Ingest) portsAsTargets(c *memo.Ctx, key cluster.Key) ([]policy.Section, *conditions.Verdict) {
	svc := i.Service.Get(c, key)
	switch {
	case svc == nil:
		return nil, &Verdict{
			Reason: string(gwv1.PolicyReasonTargetNotFound), Message: fmt.Sprintf("Service %s does not exist", key),
		}
	case !svc.Enrolled:
		return nil, &Verdict{Reason: v1alpha1.EntryReasonNotEnrolled, Message: fmt.Sprintf(
			"namespace %s is not in the mesh: label it %s=%s", key.Namespace, names.LabelMesh, names.MeshEnabled)}
	}
	return sectionsOf(svc), nil
}

func sectionsOf(svc *model.Service) (out []policy.Section) {
	for _, p := range svc.Ports {
		out = append(out, policy.Section{Name: p.Name, At: svc.Attachment(p)})
	}
	return out
}

// policyReport adds to a report what only the proxies know: which of them must have acknowledged what.
func (i *Ingest) policyReport(
	c *memo.Ctx, r *policy.Report, needs func(*memo.Ctx, []model.Attachment) ParentReport, guards bool,
) *Report {
	if r == nil {
		return nil
	}
	out := &Report{Ref: r.Ref, UID: r.UID, Generation: r.Generation}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	for _, a := range r.Ancestors {
		var entry ParentReport
		accepted := meta.FindStatusCondition(a.Conditions, string(gwv1.PolicyConditionAccepted))
		switch {
		case !meta.IsStatusConditionTrue(a.Conditions, accepted.Type):
			entry.Unprogrammed = &Verdict{Reason: accepted.Reason, Message: "the policy is not accepted"}
		case len(a.At) == 0:
			entry.Unprogrammed = &Verdict{
				Reason: v1alpha1.PolicyReasonOverridden, Message: "the target has no port that the policy is in force for",
			}
		default:
			entry = needs(c, a.At)
		}
		if guards && entry.Enforcement == nil {
			entry.Enforcement = &Enforcement{}
		}
		entry.Ref, entry.Conditions = a.Ref, a.Conditions
		out.Parents = append(out.Parents, entry)
	}
	return out
}

// atWaypoint is what a policy needs that the waypoint of the Service carries out: its proxies, and callers that go
// there. What the proxies must have acknowledged is for the kind to add; nothing where no waypoint serves the Service.
func (i *Ingest) atWaypoint(c *memo.Ctx, at []model.Attachment) (out ParentReport, served bool) {
	svc := at[0].Port.ServiceName()
	none := fmt.Sprintf("Service %s has no waypoint: it needs one that carries the policy out", svc)
	if out.Unprogrammed = i.unserved(c, svc, none); out.Unprogrammed != nil {
		return out, false
	}
	b := i.Binding.Get(c, svc)
	i.leadTo(c, b, &out)
	out.Dialled = i.dialled(c, at)
	return out, true
}

// clusterOf is the name of the cluster that a waypoint has for a port that it serves.
func (i *Ingest) clusterOf(c *memo.Ctx, at model.Attachment) string {
	if p := at.Port; !i.protocolOf.Get(c, at).HTTP() {
		return names.InboundCluster(p.Namespace, p.Service, p.Port)
	}
	return i.clusterName(c, at.Port)
}

// clusterName of the requests to a port.
func (i *Ingest) clusterName(c *memo.Ctx, p model.ServicePort) string {
	return names.RequestsTo(p.Namespace, p.Service, p.Port, i.SpeaksTLS.Get(c, p))
}
