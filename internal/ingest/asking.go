// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A waypoint asks in its own name: authorization services, rate limit services, servers of keys. Its requests to them
// come by no route table, which could tell guards, and the pods of all that it sends to let waypoints in. So whether
// guards let it ask is decided beforehand: else who may write a policy or a route could have it ask what is guarded.

// unaskable says why the waypoint of a port may not ask a Service; "" if it may.
func (i *Ingest) unaskable(c *memo.Ctx, at, service model.ServicePort) string {
	if len(i.guardsOf(c, service)) == 0 {
		return ""
	}
	return i.unaskableAs(c, i.waypointIdentity(c, i.Binding.Get(c, at.ServiceName()).Waypoint), service)
}

// unaskableAs says why a waypoint of an identity may not ask a Service; "" if it may.
func (i *Ingest) unaskableAs(c *memo.Ctx, waypoint string, service model.ServicePort) string {
	for _, g := range i.guardsOf(c, service) {
		if why := g.Refuses(waypoint); why != "" {
			return fmt.Sprintf("policies keep waypoint %s from asking Service %s: %s (rules with conditions on requests can't "+
				"allow it, and deny it whatever it asks for)", waypoint, service.ServiceName(), why)
		}
	}
	return ""
}

// undeclaredHTTP2 refuses a port that is to be asked by gRPC and isn't declared to be HTTP/2; nil if it is. What routes
// make of the port says nothing: the one that asks could be among them.
func (i *Ingest) undeclaredHTTP2(c *memo.Ctx, port model.ServicePort, what string) *Verdict {
	if p, _ := i.declared(c, port); p == model.ProtocolHTTP2 {
		return nil
	}
	return &Verdict{Reason: string(gwv1.RouteReasonUnsupportedProtocol), Message: notHTTP2(port, what)}
}

// notHTTP2 says of a port that it can't be asked something by gRPC.
func notHTTP2(port model.ServicePort, what string) string {
	return fmt.Sprintf("backend Service %s must say of port %d that it is HTTP/2 (appProtocol kubernetes.io/h2c), for %s",
		port.ServiceName(), port.Port, what)
}

// refusing is a rule whose authorization service may not be asked, or whose extensions may not be run.
func refusing(r model.Rule, asking, extensions bool) model.Rule {
	r.Filters = slices.Clone(r.Filters)
	for n := range r.Filters {
		f := &r.Filters[n]
		if asking && f.ExternalAuth != nil {
			a := *f.ExternalAuth
			a.Refused = true
			f.ExternalAuth = &a
		}
		if extensions && f.Extension != nil {
			e := *f.Extension
			e.Refused = true
			f.Extension = &e
		}
	}
	return r
}

// unasking is the verdict on what refers to a Service that may not be asked, and what follows.
func unasking(why, then string) *Verdict {
	return &Verdict{
		Reason: string(gwv1.RouteReasonRefNotPermitted), Message: fmt.Sprintf("%s; until then %s", why, then),
	}
}
