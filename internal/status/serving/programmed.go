// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Acknowledgements is what the xDS servers know of the proxies.
type Acknowledgements interface {
	// State of a resource at its current version.
	State(k xds.Key) xds.ResourceState
}

// needsOf lists what proxies need to serve a route by a parent. Those of its waypoint need the tables of its ports and
// what leads to them, and the clusters of its backends; callers' nodes what leads to the waypoint.
func needsOf(p ingest.ParentReport) []need {
	if p.Enforcement != nil {
		return guards(p.Enforcement)
	}
	if p.Waypoint.Name == "" {
		return nil
	}
	scope := catalogue.WaypointScope(p.Waypoint)
	waypoint := need{serving: catalogue.Serving(p.Waypoint)}
	for _, at := range p.Attachments {
		name := names.ServicePort(at.Port.Namespace, at.Port.Service, at.Port.Port)
		waypoint.resources = append(waypoint.resources, scope.Key(xds.TypeScopedRoute, name), scope.Key(xds.TypeRoute, name))
	}
	for _, name := range p.Clusters {
		waypoint.resources = append(waypoint.resources, scope.Key(xds.TypeCluster, name))
	}
	for _, name := range p.Backends {
		waypoint.besides = append(waypoint.besides, scope.Key(xds.TypeCluster, name))
	}
	var nodes need
	for _, address := range p.Dialled {
		nodes.resources = append(nodes.resources, catalogue.AllNodes.Key(xds.TypeCluster, address.String()))
	}
	return []need{waypoint, nodes}
}

// programmed joins what should be served with what the proxies acknowledged: condition Programmed, or Enforced.
func (e *Entries) programmed(ref model.ObjectRef, p ingest.ParentReport, generation int64) metav1.Condition {
	kind := v1alpha1.EntryConditionProgrammed
	if p.Enforcement != nil {
		kind = v1alpha1.PolicyConditionEnforced
	}
	say := func(is metav1.ConditionStatus, reason, message string) metav1.Condition {
		return conditions.New(kind, is, reason, message, generation)
	}
	switch {
	case p.Unprogrammed != nil:
		return say(metav1.ConditionFalse, p.Unprogrammed.Reason, p.Unprogrammed.Message)
	case p.Enforcement != nil:
		return say(e.enforcement(ref, p.Enforcement).enforced())
	}
	return say(acknowledged(p, e.acks))
}

func acknowledged(p ingest.ParentReport, acks Acknowledgements) (is metav1.ConditionStatus, reason, message string) {
	n := countOf(acks, needsOf(p))
	switch {
	case n.rejection != "":
		return metav1.ConditionFalse, v1alpha1.EntryReasonProxyRejected, n.rejection
	case n.serving == 0 && p.Stalled:
		return metav1.ConditionFalse, v1alpha1.EntryReasonWaypointStalled,
			fmt.Sprintf("No proxy of waypoint %s is ready, and none will be by itself: see the conditions of its Gateway", p.Waypoint)
	case n.serving == 0:
		return metav1.ConditionFalse, v1alpha1.EntryReasonNoProxies,
			fmt.Sprintf("No proxy of waypoint %s is ready: see the conditions of its Gateway", p.Waypoint)
	}
	message = fmt.Sprintf("%d/%d proxies of waypoint %s serve this generation", n.acked, n.serving, p.Waypoint)
	is, reason = metav1.ConditionFalse, v1alpha1.EntryReasonPending
	switch {
	case n.acked < n.serving:
	case p.Pending:
		message += ", but callers go straight to the Service until its Gateway is " + v1alpha1.GatewayConditionEstablished
	case n.behind != "":
		message += ", but node proxy " + n.behind + " does not send callers to it yet"
	default:
		is, reason = metav1.ConditionTrue, v1alpha1.EntryReasonProgrammed
	}
	return is, reason, message
}

// tableRejected tells whether a proxy rejects a route table that a route is part of.
func tableRejected(report *ingest.Report, acks Acknowledgements) bool {
	for _, p := range report.Parents {
		for _, r := range resourcesOf(needsOf(p)) {
			if r.TypeURL == xds.TypeRoute && acks.State(r).Rejection() != "" {
				return true
			}
		}
	}
	return false
}

// waits tells whether a condition Programmed says only that answers of proxies are missing, which may come any moment.
func waits(c *metav1.Condition) bool {
	return c.Reason == v1alpha1.EntryReasonPending || c.Reason == v1alpha1.EntryReasonNoProxies
}

// saysRejected tells whether an entry says that a proxy rejects something. Others may have yet to answer meanwhile, and
// then what all say in the end is no news.
func saysRejected(p gwv1.RouteParentStatus) bool {
	return programmedOf(p).Reason == v1alpha1.EntryReasonProxyRejected
}
