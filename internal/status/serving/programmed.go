// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Acknowledgements is what the xDS servers know of the proxies.
type Acknowledgements interface {
	// State of a resource at its current version.
	State(k xds.Key) xds.ResourceState
}

// resourcesOf lists what the proxies of a parent's waypoint need to serve the route: the listener that every proxy of the
// waypoint has, and by which it comes and goes, then the tables of its ports and what leads to them, then the clusters of its
// backends; and last what leads callers to the waypoint, on their nodes.
func resourcesOf(p ingest.ParentReport) []xds.Key {
	if p.Waypoint.Name == "" {
		return nil
	}
	scope := catalogue.WaypointScope(p.Waypoint)
	out := []xds.Key{catalogue.Serving(p.Waypoint)}
	for _, port := range p.Ports {
		name := names.ServicePort(port.Namespace, port.Service, port.Port)
		out = append(out, scope.Key(xds.TypeScopedRoute, name), scope.Key(xds.TypeRoute, name))
	}
	for _, port := range p.Backends {
		out = append(out, scope.Key(xds.TypeCluster, names.ServicePort(port.Namespace, port.Service, port.Port)))
	}
	for _, address := range p.Dialled {
		out = append(out, catalogue.AllNodes.Key(xds.TypeCluster, address.String()))
	}
	return out
}

// programmed joins what should be served with what the proxies acknowledged: those of the waypoint, and then the node proxies
// that callers' requests come by.
func programmed(p ingest.ParentReport, generation int64, acks Acknowledgements) metav1.Condition {
	say := func(is metav1.ConditionStatus, reason, message string) metav1.Condition {
		return conditions.New(v1alpha1.RouteConditionProgrammed, is, reason, message, generation)
	}
	if p.Unprogrammed != nil {
		return say(metav1.ConditionFalse, p.Unprogrammed.Reason, p.Unprogrammed.Message)
	}
	return say(acknowledged(p, acks))
}

func acknowledged(p ingest.ParentReport, acks Acknowledgements) (is metav1.ConditionStatus, reason, message string) {
	ready := catalogue.Ready(acks.State(catalogue.Serving(p.Waypoint)))
	acked, behind := len(ready), ""
	for _, r := range resourcesOf(p) {
		n := 0
		for _, a := range acks.State(r).Proxies {
			switch {
			case a.State == xds.Rejected:
				return metav1.ConditionFalse, v1alpha1.RouteReasonProxyRejected,
					fmt.Sprintf("Proxy %s rejects %s and keeps the last good one: %s", a.Proxy.Pod, r.ID, a.Error)
			case r.Scope == catalogue.AllNodes && a.State != xds.Acked:
				behind = cmp.Or(behind, a.Proxy.Pod)
			case a.State == xds.Acked && ready[a.Proxy.ID()]:
				n++
			}
		}
		// Of other resources only rejections are told between replicas; who has the route tables has what leads to them.
		if r.TypeURL == xds.TypeRoute {
			acked = min(acked, n)
		}
	}
	if len(ready) == 0 {
		return metav1.ConditionFalse, v1alpha1.RouteReasonNoProxies,
			fmt.Sprintf("No proxy of waypoint %s is ready: see the conditions of its Gateway", p.Waypoint)
	}
	message = fmt.Sprintf("%d/%d proxies of waypoint %s serve this generation", acked, len(ready), p.Waypoint)
	is, reason = metav1.ConditionFalse, v1alpha1.RouteReasonPending
	switch {
	case acked < len(ready):
	case p.Pending:
		message += ", but callers go straight to the Service until its Gateway is " + v1alpha1.GatewayConditionEstablished
	case behind != "":
		message += ", but node proxy " + behind + " does not send callers to it yet"
	default:
		is, reason = metav1.ConditionTrue, v1alpha1.RouteReasonProgrammed
	}
	return is, reason, message
}

// tableRejected tells whether a proxy rejects a route table that a route is part of.
func tableRejected(report *ingest.RouteReport, acks Acknowledgements) bool {
	for _, p := range report.Parents {
		for _, r := range resourcesOf(p) {
			if r.TypeURL == xds.TypeRoute && acks.State(r).Rejection() != "" {
				return true
			}
		}
	}
	return false
}

// waits tells whether a condition Programmed says only that answers of proxies are missing, which may come any moment.
func waits(c *metav1.Condition) bool {
	return c.Reason == v1alpha1.RouteReasonPending || c.Reason == v1alpha1.RouteReasonNoProxies
}
