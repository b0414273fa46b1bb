// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// attachedRoute is a route of a waypoint's Service.
type attachedRoute struct {
	name      string
	complaint string // what its conditions say, if anything
}

// readRoutes finds the routes of each waypoint, by the Services that they are attached to.
func (k *collector) readRoutes(ctx context.Context) map[types.NamespacedName][]attachedRoute {
	var services corev1.ServiceList
	k.list(ctx, "Services", &services)
	waypointOf := map[types.NamespacedName]types.NamespacedName{}
	for i := range services.Items {
		s := &services.Items[i]
		if w, ok := waypointName(s, k.namespaces[s.Namespace]); ok {
			waypointOf[client.ObjectKeyFromObject(s)] = types.NamespacedName{Namespace: s.Namespace, Name: w}
		}
	}
	out := map[types.NamespacedName][]attachedRoute{}
	add := func(kind string, o metav1.ObjectMeta, parents []gatewayv1.RouteParentStatus) {
		for _, p := range parents {
			if p.ControllerName != names.MeshController || p.ParentRef.Kind == nil || *p.ParentRef.Kind != "Service" {
				continue
			}
			service := types.NamespacedName{Namespace: o.Namespace, Name: string(p.ParentRef.Name)}
			if p.ParentRef.Namespace != nil {
				service.Namespace = string(*p.ParentRef.Namespace)
			}
			if w, ok := waypointOf[service]; ok {
				out[w] = append(out[w], attachedRoute{name: kind + " " + o.Namespace + "/" + o.Name, complaint: complaint(p.Conditions)})
			}
		}
	}
	var http gatewayv1.HTTPRouteList
	k.list(ctx, "HTTPRoutes", &http)
	for i := range http.Items {
		add("HTTPRoute", http.Items[i].ObjectMeta, http.Items[i].Status.Parents)
	}
	var grpc gatewayv1.GRPCRouteList
	k.list(ctx, "GRPCRoutes", &grpc)
	for i := range grpc.Items {
		add("GRPCRoute", grpc.Items[i].ObjectMeta, grpc.Items[i].Status.Parents)
	}
	return out
}

// waypointName is the Gateway that a Service's label, or else its namespace's, leads to.
func waypointName(s *corev1.Service, ns *corev1.Namespace) (string, bool) {
	if ns == nil || ns.Labels[names.LabelMesh] != names.MeshEnabled {
		return "", false
	}
	use := cmp.Or(s.Labels[names.LabelUseWaypoint], ns.Labels[names.LabelUseWaypoint], names.UseWaypointAuto)
	switch use {
	case names.UseWaypointNone:
		return "", false
	case names.UseWaypointAuto:
		return names.AutomaticWaypoint, true
	}
	return use, true
}

// complaint is the first condition of a route that says that something is wrong.
func complaint(conditions []metav1.Condition) string {
	for _, c := range conditions {
		bad := metav1.ConditionFalse
		if c.Type == string(gatewayv1.RouteConditionPartiallyInvalid) {
			bad = metav1.ConditionTrue
		}
		if c.Status == bad {
			return oneLine(c.Type + "=" + string(c.Status) + " " + c.Reason + ": " + c.Message)
		}
	}
	return ""
}
