// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// attachedRoute is a route of the mesh.
type attachedRoute struct {
	name      string
	complaint string // what its conditions say, if anything
}

// routes are those that name a Service of the mesh, or a waypoint, as parent; by the waypoint that is meant. Those
// whose parent has none, or does not exist, are under the empty name.
type routes map[types.NamespacedName][]attachedRoute

// messageUnanswered is said of a route without a status.
const messageUnanswered = "the operator has not processed it yet"

// readRoutes finds the routes of each waypoint, by the Services that they are attached to.
func (k *collector) readRoutes(ctx context.Context) routes {
	waypointOf := map[types.NamespacedName]types.NamespacedName{}
	for i := range k.services {
		s := &k.services[i]
		if w, ok := waypointName(s, k.namespaces[s.Namespace]); ok {
			waypointOf[client.ObjectKeyFromObject(s)] = types.NamespacedName{Namespace: s.Namespace, Name: w}
		}
	}
	out := routes{}
	add := func(kind string, o metav1.ObjectMeta, spec []gwv1.ParentReference, parents []gwv1.RouteParentStatus) {
		name := kind + " " + o.Namespace + "/" + o.Name
		answered := false
		for _, p := range parents {
			if p.ControllerName != names.MeshController {
				continue
			}
			answered = true
			w := parentOf(o.Namespace, p.ParentRef)
			if !isGateway(p.ParentRef) {
				w = waypointOf[w]
			}
			out[w] = append(out[w], attachedRoute{name: name, complaint: complaint(p.Conditions)})
		}
		if !answered && k.expectsAnswer(o.Namespace, spec) {
			out[types.NamespacedName{}] = append(out[types.NamespacedName{}], attachedRoute{
				name: name, complaint: messageUnanswered,
			})
		}
	}
	var http gwv1.HTTPRouteList
	k.list(ctx, "HTTPRoutes", &http)
	for i := range http.Items {
		add("HTTPRoute", http.Items[i].ObjectMeta, http.Items[i].Spec.ParentRefs, http.Items[i].Status.Parents)
	}
	var grpc gwv1.GRPCRouteList
	k.list(ctx, "GRPCRoutes", &grpc)
	for i := range grpc.Items {
		add("GRPCRoute", grpc.Items[i].ObjectMeta, grpc.Items[i].Spec.ParentRefs, grpc.Items[i].Status.Parents)
	}
	return out
}

// expectsAnswer tells whether the operator should have written a status: a parent is a Service in a namespace of the
// mesh.
func (k *collector) expectsAnswer(namespace string, parents []gwv1.ParentReference) bool {
	if k.mesh == nil {
		return false
	}
	for _, p := range parents {
		ns := k.namespaces[parentOf(namespace, p).Namespace]
		service := p.Group != nil && *p.Group == "" && p.Kind != nil && *p.Kind == "Service"
		if service && member.Enrolled(ns) {
			return true
		}
	}
	return false
}

func parentOf(namespace string, p gwv1.ParentReference) types.NamespacedName {
	if p.Namespace != nil {
		namespace = string(*p.Namespace)
	}
	return types.NamespacedName{Namespace: namespace, Name: string(p.Name)}
}

func isGateway(p gwv1.ParentReference) bool { return p.Kind == nil || *p.Kind == "Gateway" }

// judgeServices names the Services that refuse every connection, for want of the waypoint that they are to go through.
func (k *collector) judgeServices() {
	for i := range k.services {
		s := &k.services[i]
		c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceConditionWaypointBound)
		if c == nil || c.Status != metav1.ConditionFalse {
			continue
		}
		switch c.Reason {
		case v1alpha1.ServiceReasonWaypointMissing, v1alpha1.ServiceReasonOverBudget:
			k.problem("Service %s/%s: %s", s.Namespace, s.Name, oneLine(c.Message))
		case v1alpha1.ServiceReasonNotSupported:
			k.report.Elsewhere = append(k.report.Elsewhere, "Service "+s.Namespace+"/"+s.Name+": "+oneLine(c.Message))
		}
	}
}

// waypointName is the Gateway that a Service's label, or else its namespace's, leads to.
func waypointName(s *corev1.Service, ns *corev1.Namespace) (string, bool) {
	use := member.UseOf(s, ns)
	return use.Gateway(), member.Enrolled(ns) && !use.None()
}

// complaint is the first condition of a route that says that something is wrong.
func complaint(conditions []metav1.Condition) string {
	for _, c := range conditions {
		bad := metav1.ConditionFalse
		if c.Type == string(gwv1.RouteConditionPartiallyInvalid) || c.Type == v1alpha1.EntryConditionStatusFull {
			bad = metav1.ConditionTrue
		}
		if c.Status == bad {
			return oneLine(c.Type + "=" + string(c.Status) + " " + c.Reason + ": " + c.Message)
		}
	}
	return ""
}
