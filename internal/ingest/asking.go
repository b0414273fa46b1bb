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
//
// What a namespace that isn't the waypoint's has asked is asked for it: its own callers' requests are shown, by a route
// that it wrote, or those to its pods, by a policy of its own. So guards of others must let in all of its accounts,
// too. Else who is refused could have its requests carried out by being asked about.

// unaskable says why the waypoint of a port may not ask a Service for a route or policy of a namespace; "" if it may.
func (i *Ingest) unaskable(c *memo.Ctx, at, service model.ServicePort, author string) string {
	if len(i.guardsOf(c, service)) == 0 {
		return ""
	}
	waypoint := i.WaypointIdentity(c, i.Binding.Get(c, at.ServiceName()).Waypoint)
	return i.unaskableAs(c, asker{waypoint: waypoint, owner: at.Namespace, author: author}, service)
}

// asker is the waypoint of an identity and a namespace, that asks for what the author's namespace wrote.
type asker struct{ waypoint, owner, author string }

// unaskableAs says why an asker may not ask a Service; "" if it may.
func (i *Ingest) unaskableAs(c *memo.Ctx, by asker, service model.ServicePort) string {
	const conditions = "(rules with conditions on requests can't allow it, and deny it whatever it asks for)"
	for _, g := range i.guardsOf(c, service) {
		if why := g.Refuses(model.AccessSource{Identity: by.waypoint}); why != "" {
			return fmt.Sprintf("policies keep waypoint %s from asking Service %s: %s %s", by.waypoint, service.ServiceName(),
				why, conditions)
		}
		if by.author == by.owner || by.author == service.Namespace {
			continue
		}
		if why := g.Refuses(i.accountsOf(c, by.author)); why != "" {
			return fmt.Sprintf("waypoint %s asks Service %s for namespace %s, and policies don't let in all accounts of that "+
				"namespace: %s %s", by.waypoint, service.ServiceName(), by.author, why, conditions)
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
