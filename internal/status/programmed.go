// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Reasons of the condition Programmed of a route.
const (
	// ReasonProgrammed: every ready proxy that must serve the route has acknowledged it.
	ReasonProgrammed = "Programmed"
	// ReasonPending: some proxy has not answered yet.
	ReasonPending = "Pending"
	// ReasonNoProxies: no proxy of the waypoint is connected.
	ReasonNoProxies = "NoProxies"
	// ReasonProxyRejected: a proxy refused the configuration; it goes on with the last good one.
	ReasonProxyRejected = "ProxyRejected"
)

// Acknowledgements is what the xDS servers know of the proxies.
type Acknowledgements interface {
	// State of a resource at its current version.
	State(scope, typeURL, name string) xds.ResourceState
	// Connected counts the proxies of a scope.
	Connected(scope string) int
}

// programmed joins what should be served with what the proxies acknowledged. settled is false while an answer is
// still to be expected.
func programmed(p ingest.ParentReport, generation int64, acks Acknowledgements) (c metav1.Condition, settled bool) {
	c = metav1.Condition{Type: names.ConditionProgrammed, Status: metav1.ConditionFalse, ObservedGeneration: generation}
	if p.Unprogrammed != nil {
		c.Reason, c.Message = p.Unprogrammed.Reason, p.Unprogrammed.Message
		return c, true
	}
	scope := names.WaypointScope(p.Waypoint.Namespace, p.Waypoint.Name)
	total := acks.Connected(scope)
	if total == 0 {
		c.Reason = ReasonNoProxies
		c.Message = fmt.Sprintf("no proxy of waypoint %s is connected yet: see the conditions of its Gateway", p.Waypoint)
		return c, true
	}
	acked := total
	for _, port := range p.Ports {
		n := 0
		for _, a := range acks.State(scope, xds.TypeRoute, names.ServicePort(port.Namespace, port.Service, port.Port)).Proxies {
			switch a.State {
			case xds.Acked:
				n++
			case xds.Pending:
			case xds.Rejected:
				c.Reason = ReasonProxyRejected
				c.Message = fmt.Sprintf("proxy %s rejects the configuration and keeps the last good one: %s", a.Proxy.Pod, a.Error)
				return c, true
			}
		}
		acked = min(acked, n)
	}
	c.Message = fmt.Sprintf("%d/%d proxies of waypoint %s serve this generation", acked, total, p.Waypoint)
	if acked < total {
		c.Reason = ReasonPending
		return c, false
	}
	c.Status, c.Reason = metav1.ConditionTrue, ReasonProgrammed
	return c, true
}
