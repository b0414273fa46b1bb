// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Reasons that Fairway adds to the Gateway API's own for routes.
const (
	// ReasonNotEnrolled: the parent Service's namespace is not in the mesh.
	ReasonNotEnrolled gwv1.RouteConditionReason = "NamespaceNotEnrolled"
	// ReasonConflicted: another kind of route has the port (GEP-1426).
	ReasonConflicted gwv1.RouteConditionReason = "Conflicted"
	// ReasonNoWaypoint: no waypoint serves the parent Service.
	ReasonNoWaypoint gwv1.RouteConditionReason = "NoWaypoint"
)

// RouteReport is what a route's status is to say, but for what only the proxies know.
type RouteReport struct {
	Ref        model.ObjectRef
	Generation int64
	Parents    []ParentReport
}

// ParentReport is about one parentRef.
type ParentReport struct {
	Ref gwv1.ParentReference
	// Conditions Accepted, ResolvedRefs and, where it applies, PartiallyInvalid; without times.
	Conditions []metav1.Condition
	// Waypoint whose proxies must acknowledge the route tables of Ports before the route is Programmed.
	Waypoint cluster.Key
	Ports    []model.ServicePort
	// Unprogrammed says why no proxy will serve the route; nil where one should.
	Unprogrammed *Verdict
}

func (i *Ingest) report(c *memo.Ctx, ref model.ObjectRef) *RouteReport {
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	out := &RouteReport{Ref: ref, Generation: r.Generation}
	for _, p := range r.Parents {
		out.Parents = append(out.Parents, i.parentReport(c, r, p))
	}
	return out
}

func (i *Ingest) parentReport(c *memo.Ctx, r *Route, p Parent) ParentReport {
	out := ParentReport{Ref: p.Ref, Ports: p.Ports}
	refused := p.Refused
	if refused == nil {
		refused = r.Invalid
	}
	if refused == nil {
		refused = i.conflict(c, r, p)
	}
	out.Conditions = append(out.Conditions,
		condition(gwv1.RouteConditionAccepted, refused, gwv1.RouteReasonAccepted, acceptedMessage(p), r.Generation),
		condition(gwv1.RouteConditionResolvedRefs, r.Resolved, gwv1.RouteReasonResolvedRefs, "every backend was found", r.Generation))
	if r.Partial != nil {
		out.Conditions = append(out.Conditions, metav1.Condition{
			Type:   string(gwv1.RouteConditionPartiallyInvalid),
			Status: metav1.ConditionTrue, Reason: r.Partial.Reason, ObservedGeneration: r.Generation,
			Message: r.Partial.Message + ". Requests that match such a rule are answered with 500",
		})
	}
	if refused != nil {
		out.Unprogrammed = &Verdict{refused.Reason, "the route is not accepted"}
		return out
	}
	b := i.Binding.Get(c, p.Service)
	switch {
	case b.None():
		out.Unprogrammed = &Verdict{string(ReasonNoWaypoint), fmt.Sprintf("Service %s is kept off every waypoint by its label or its namespace's", p.Service)}
	case b.Problem != "":
		out.Unprogrammed = &Verdict{string(ReasonNoWaypoint), b.Problem + ": connections to the Service are refused meanwhile"}
	default:
		out.Waypoint = b.Waypoint
	}
	return out
}

// conflict finds out whether GRPCRoutes leave an HTTPRoute no port at all.
func (i *Ingest) conflict(c *memo.Ctx, r *Route, p Parent) *Verdict {
	if r.Ref.Kind != KindHTTPRoute {
		return nil
	}
	taken := map[model.ServicePort]string{}
	for _, ref := range i.routesOf(c, p.Service) {
		other := i.Route.Get(c, ref)
		if ref.Kind != KindGRPCRoute || other == nil || other.Ref.Namespace != r.Ref.Namespace {
			continue
		}
		for _, port := range p.Ports {
			if other.attachesToPort(port) {
				taken[port] = ref.Name
			}
		}
	}
	for _, port := range p.Ports {
		if taken[port] == "" {
			return nil
		}
	}
	return &Verdict{string(ReasonConflicted), fmt.Sprintf("GRPCRoute %s takes the same ports of Service %s, and a GRPCRoute goes before an HTTPRoute (GEP-1426)",
		taken[p.Ports[0]], p.Service)}
}

func acceptedMessage(p Parent) string {
	ports := make([]string, 0, len(p.Ports))
	for _, port := range p.Ports {
		ports = append(ports, fmt.Sprint(port.Port))
	}
	return fmt.Sprintf("attached to Service %s, port %s", p.Service, strings.Join(slices.Compact(ports), ", "))
}

func condition(t gwv1.RouteConditionType, bad *Verdict, good gwv1.RouteConditionReason, message string, generation int64) metav1.Condition {
	out := metav1.Condition{Type: string(t), Status: metav1.ConditionTrue, Reason: string(good), Message: message, ObservedGeneration: generation}
	if bad != nil {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, bad.Reason, bad.Message
	}
	return out
}
