// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A waypoint decides by the guards of the pods that a Service has (behind), each at the port that it leads to, and
// a pod lets in the waypoints of the Services that have it. EndpointSlices say where connections go, and may say
// something else: written by hand, stale for a moment after labels or ports changed or an address went to another pod,
// of a Service in another namespace. Where a waypoint that such a pod lets in for another Service's sake would go to
// it, so past its guard, the endpoint is a stray, and none for waypoints.
//
// Whoever is asked for enforcement waits for this, too: endpoints go to proxies before the tables that have the guards.

// listedKind is a kind of pods, and the addresses of such that a slice lists, sorted.
type listedKind struct {
	PodKind
	addrs []netip.Addr
}

func sameListed(a, b []listedKind) bool {
	return slices.EqualFunc(a, b, func(a, b listedKind) bool {
		return a.PodKind == b.PodKind && slices.Equal(a.addrs, b.addrs)
	})
}

// listedKinds are those of the captured pods that a slice lists, of namespaces where anything is guarded. Pods are
// known by who has the address, whatever the slice says of them.
func (i *Ingest) listedKinds(c *memo.Ctx, key cluster.Key) []listedKind {
	s := i.sliceOf.Get(c, key)
	if s == nil {
		return nil
	}
	var out []listedKind
	for _, e := range s.endpoints {
		if !e.MTLS {
			continue
		}
		pod := i.Claims.Get(c, e.Address.Addr()).holder
		if !i.guarding(c, pod.Namespace) {
			continue
		}
		k := i.PodKind.Get(c, pod)
		n := slices.IndexFunc(out, func(have listedKind) bool { return have.PodKind == k })
		if n < 0 {
			n, out = len(out), append(out, listedKind{PodKind: k})
		}
		out[n].addrs = append(out[n].addrs, e.Address.Addr())
	}
	slices.SortFunc(out, func(a, b listedKind) int { return a.compare(b.PodKind) })
	return out
}

// guarding tells whether anything in a namespace may be guarded.
func (i *Ingest) guarding(c *memo.Ctx, namespace string) bool {
	return len(i.aimsIn.Get(c, namespace)) > 0 || i.Settings.Get(c, struct{}{}).defaultDeny ||
		i.authenticates(c, namespace)
}

// straysOf are the endpoints of a Service's port that are none for waypoints.
func (i *Ingest) straysOf(c *memo.Ctx, at model.ServicePort) (out []netip.AddrPort) {
	senders := i.sendersTo.Get(c, at)
	svc := i.Service.Get(c, at.ServiceName())
	if len(senders) == 0 || svc == nil {
		return nil
	}
	port, _ := svc.Port(at.Port)
	for _, key := range i.store.EndpointSlices.By(c, cluster.ByService, at.Namespace+"/"+at.Service) {
		listed := i.kindsOfSlice.Get(c, key)
		if len(listed) == 0 {
			continue
		}
		target, ok := i.sliceOf.Get(c, key).ports[port.Name]
		if !ok {
			continue
		}
		for _, k := range listed {
			if !i.past(c, senders, k.PodKind, podPort{at, target}) {
				continue
			}
			for _, a := range k.addrs {
				out = append(out, netip.AddrPortFrom(a, target))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// past tells whether any of the waypoints that send to a Service's port would get past the guard of pods there.
func (i *Ingest) past(c *memo.Ctx, senders []sender, k PodKind, to podPort) bool {
	if slices.Contains(i.portsOf.Get(c, k), to) {
		return false // the waypoint asks it
	}
	g := i.GuardOf.Get(c, k)
	return g.Restricts() && slices.ContainsFunc(g.Waypoints, func(w model.GuardedPort) bool {
		return w.Port == to.target &&
			slices.ContainsFunc(senders, func(s sender) bool { return s.identity == w.Waypoint })
	})
}

// waypointEndpoints are the Endpoints without strays.
func (i *Ingest) waypointEndpoints(c *memo.Ctx, port model.ServicePort) []model.Endpoint {
	all, strays := i.Endpoints.Get(c, port), i.strays.Get(c, port)
	if len(strays) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(e model.Endpoint) bool { return slices.Contains(strays, e.Address) })
}
