// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// meshRoute is a route of any kind.
type meshRoute struct {
	client.Object
	kind   string
	refs   []gwv1.ParentReference
	status []gwv1.RouteParentStatus
}

func (r meshRoute) key() types.NamespacedName { return client.ObjectKeyFromObject(r.Object) }

func (k *collector) listRoutes(ctx context.Context) {
	var http gwv1.HTTPRouteList
	k.list(ctx, whatHTTPRoutes, &http)
	for i := range http.Items {
		r := &http.Items[i]
		k.routes = append(k.routes, meshRoute{r, "HTTPRoute", r.Spec.ParentRefs, r.Status.Parents})
	}
	var grpc gwv1.GRPCRouteList
	k.list(ctx, whatGRPCRoutes, &grpc)
	for i := range grpc.Items {
		r := &grpc.Items[i]
		k.routes = append(k.routes, meshRoute{r, "GRPCRoute", r.Spec.ParentRefs, r.Status.Parents})
	}
}

// routesUnread tells that some routes could not be listed.
func (k *collector) routesUnread() bool { return k.unread[whatHTTPRoutes] || k.unread[whatGRPCRoutes] }

// attachedRoute is a route of the mesh.
type attachedRoute struct {
	name      string
	complaint string // what its conditions say, if anything
}

// routes are those that name a Service of the mesh, or a waypoint, as parent; by the waypoint that is meant. Those
// whose parent has none, or does not exist, are under the empty name.
type routes map[types.NamespacedName][]attachedRoute

const (
	// messageUnanswered is said of a route without a status, messageStale where its status is of what it was before.
	messageUnanswered = "the operator has not processed it yet"
	messageStale      = "the operator has not processed its last change yet"
)

// attached finds the routes of each waypoint, by the Services that they are attached to, and counts those that are
// others'.
func (k *collector) attached() routes {
	waypointOf := map[types.NamespacedName]types.NamespacedName{}
	for i := range k.services {
		s := &k.services[i]
		if w, ok := waypointName(s, k.namespaces[s.Namespace]); ok {
			waypointOf[client.ObjectKeyFromObject(s)] = types.NamespacedName{Namespace: s.Namespace, Name: w}
		}
	}
	out := routes{}
	for _, r := range k.routes {
		name := r.kind + " " + r.key().String()
		ours := false
		for _, p := range r.status {
			if p.ControllerName != names.MeshController {
				continue
			}
			ours = true
			w := parentOf(r.GetNamespace(), p.ParentRef)
			if !isGateway(p.ParentRef) {
				w = waypointOf[w]
			}
			out[w] = append(out[w], attachedRoute{name: name, complaint: complaint(p.Conditions)})
		}
		for _, what := range k.unanswered(r) {
			ours = true
			out[types.NamespacedName{}] = append(out[types.NamespacedName{}], attachedRoute{name: name, complaint: what})
		}
		if !ours && k.enrolled(r.GetNamespace()) {
			k.report.RoutesOfOthers++
		}
	}
	return out
}

// unanswered says of each parent of a route that the operator should have answered, or that nobody will, what is wrong.
func (k *collector) unanswered(r meshRoute) (out []string) {
	if k.mesh == nil && !k.meshUnknown {
		return nil
	}
	if len(r.refs) == 0 && len(r.status) == 0 && k.enrolled(r.GetNamespace()) {
		return []string{"it has no parentRefs, so it applies to nothing: name a Service, " + howToName}
	}
	for _, ref := range r.refs {
		if !answered(r, ref) {
			if what := k.expected(r, ref); what != "" {
				out = append(out, what)
			}
		}
	}
	return out
}

// howToName is how routes name a Service of the mesh.
const howToName = `with group "" and kind Service`

// expected says what is wrong with a parent that has no answer of the mesh; empty if none is due.
func (k *collector) expected(r meshRoute, ref gwv1.ParentReference) string {
	parent := parentOf(r.GetNamespace(), ref)
	if !k.enrolled(r.GetNamespace()) && !k.enrolled(parent.Namespace) {
		return ""
	}
	group, kind := parentKind(ref)
	switch {
	case kind == "Service" && (group == "" || group == gwv1.GroupName):
		if !k.enrolled(parent.Namespace) && answeredByOthers(r, ref) {
			return ""
		}
		return k.wouldBeSaid(r, ref)
	case kind == "Service" && group == "core" && k.enrolled(parent.Namespace):
		return k.wouldBeSaid(r, ref)
	case kind != "Gateway" || group != gwv1.GroupName:
		return "" // another kind is others' to serve
	case k.unread[whatGateways] || k.namespace != "" && parent.Namespace != k.namespace:
		return "" // who knows whose it is
	}
	for i := range k.gateways {
		if g := &k.gateways[i]; client.ObjectKeyFromObject(g) == parent {
			if g.Spec.GatewayClassName == names.WaypointClass {
				return k.wouldBeSaid(r, ref)
			}
			return ""
		}
	}
	return fmt.Sprintf("its parent, Gateway %s, does not exist; routes of the mesh don't name a waypoint but the "+
		"Service, %s", parent, howToName)
}

// wouldBeSaid is what the operator would say of a parent.
func (k *collector) wouldBeSaid(r meshRoute, ref gwv1.ParentReference) string {
	parent := parentOf(r.GetNamespace(), ref)
	nothing := messageUnanswered
	if statusOf(r, ref) != nil {
		nothing = messageStale
	}
	if k.meaning == nil || k.namespace != "" && parent.Namespace != k.namespace {
		return nothing
	}
	for _, p := range k.meaning.Parents(r.kind, r.key()) {
		if equality.Semantic.DeepEqual(p.Ref, ref) && p.Refused != nil {
			return oneLine(p.Refused.Message)
		}
	}
	return nothing
}

// statusOf is what the mesh has said of a parent; nil: nothing.
func statusOf(r meshRoute, ref gwv1.ParentReference) *gwv1.RouteParentStatus {
	for i, p := range r.status {
		if p.ControllerName == names.MeshController && sameParent(r.GetNamespace(), p.ParentRef, ref) {
			return &r.status[i]
		}
	}
	return nil
}

// answered tells whether the mesh has said something of a parent as it is now.
func answered(r meshRoute, ref gwv1.ParentReference) bool {
	p := statusOf(r, ref)
	if p == nil {
		return false
	}
	accepted := meta.FindStatusCondition(p.Conditions, string(gwv1.RouteConditionAccepted))
	return accepted == nil || accepted.ObservedGeneration >= r.GetGeneration()
}

func answeredByOthers(r meshRoute, ref gwv1.ParentReference) bool {
	for _, p := range r.status {
		if p.ControllerName != names.MeshController && sameParent(r.GetNamespace(), p.ParentRef, ref) {
			return true
		}
	}
	return false
}

// sameParent tells whether two references mean the same, whatever they leave unsaid.
func sameParent(namespace string, a, b gwv1.ParentReference) bool {
	groupA, kindA := parentKind(a)
	groupB, kindB := parentKind(b)
	return groupA == groupB && kindA == kindB && parentOf(namespace, a) == parentOf(namespace, b) &&
		equality.Semantic.DeepEqual(a.SectionName, b.SectionName) && equality.Semantic.DeepEqual(a.Port, b.Port)
}

// parentKind is what a reference names: unless it says otherwise, a Gateway.
func parentKind(p gwv1.ParentReference) (group, kind string) {
	group, kind = gwv1.GroupName, "Gateway"
	if p.Group != nil {
		group = string(*p.Group)
	}
	if p.Kind != nil {
		kind = string(*p.Kind)
	}
	return group, kind
}

func parentOf(namespace string, p gwv1.ParentReference) types.NamespacedName {
	if p.Namespace != nil {
		namespace = string(*p.Namespace)
	}
	return types.NamespacedName{Namespace: namespace, Name: string(p.Name)}
}

func isGateway(p gwv1.ParentReference) bool {
	_, kind := parentKind(p)
	return kind == "Gateway"
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
