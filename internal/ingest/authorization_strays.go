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
// of a Service in another namespace. There a waypoint would come to a pod whose guard it hasn't asked about the caller,
// and the pod decide on the waypoint: which it lets in for another Service's sake, or by a rule about callers that may
// be meant for just them. So where anything guards such a pod, the endpoint is a stray, and none for waypoints.
//
// A Service without selector may list pods of other namespaces, though, and its own namespace's waypoint send there: it
// does so as itself, as any pod of that namespace could, and the guard decides on it.
//
// Where nobody but a consumer's route has a waypoint send to a port, addresses that no pod of the Service's namespace
// has are outsiders, and none either, guarded or not: else whoever may write slices would reach by the waypoint what
// the network, or an application that goes by addresses, keeps from them.
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

// straysOf are the endpoints of a Service's port that are none for the waypoints that send there by somebody's word.
func (i *Ingest) straysOf(c *memo.Ctx, at Sent) (out []netip.AddrPort) {
	senders := slices.DeleteFunc(slices.Clone(i.sendersTo.Get(c, at.ServicePort)),
		func(s sender) bool { return s.word != at.Word })
	if len(senders) == 0 {
		return nil
	}
	return i.listedAt(c, at.ServicePort, func(key cluster.Key, target uint16) (out []netip.Addr) {
		for _, k := range i.kindsOfSlice.Get(c, key) {
			if i.past(c, at, senders, k.PodKind, target) {
				out = append(out, k.addrs...)
			}
		}
		return out
	})
}

// listedAt are those of the addresses of each EndpointSlice of a Service that lead somewhere at a port, sorted.
func (i *Ingest) listedAt(
	c *memo.Ctx, at model.ServicePort, of func(slice cluster.Key, target uint16) []netip.Addr,
) (out []netip.AddrPort) {
	svc := i.Service.Get(c, at.ServiceName())
	if svc == nil {
		return nil
	}
	port, _ := svc.Port(at.Port)
	for _, key := range i.store.EndpointSlices.By(c, cluster.ByService, at.Namespace+"/"+at.Service) {
		s := i.sliceOf.Get(c, key)
		if s == nil {
			continue
		}
		if target, ok := s.ports[port.Name]; ok {
			for _, a := range of(key, target) {
				out = append(out, netip.AddrPortFrom(a, target))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// past tells whether any of the waypoints that send to a Service's port would get past the guard of pods there.
func (i *Ingest) past(c *memo.Ctx, at Sent, senders []sender, k PodKind, target uint16) bool {
	if slices.Contains(i.portsOf.Get(c, k), podPort{at.ServicePort, target}) {
		return false // the waypoint asks it
	}
	g := i.GuardOf.Get(c, k)
	if !g.Restricts() {
		return false
	}
	asItself := at.Word == OfOwner && k.namespace != at.Namespace &&
		slices.Contains(i.listing.Get(c, at.Namespace), at.ServiceName())
	return !asItself || slices.ContainsFunc(g.Waypoints, func(w model.GuardedPort) bool {
		return w.Port == target &&
			slices.ContainsFunc(senders, func(s sender) bool { return s.identity == w.Waypoint })
	})
}

// foreignAddresses are those that a slice lists and no pod of its namespace has, sorted.
func (i *Ingest) foreignAddresses(c *memo.Ctx, key cluster.Key) (out []netip.Addr) {
	s := i.sliceOf.Get(c, key)
	if s == nil {
		return nil
	}
	for _, e := range s.endpoints {
		if a := e.Address.Addr(); i.Claims.Get(c, a).holder.Namespace != key.Namespace {
			out = append(out, a)
		}
	}
	return out
}

// outsidersOf are the endpoints of a Service's port that are none for waypoints that consumers' routes alone have send
// there.
func (i *Ingest) outsidersOf(c *memo.Ctx, at model.ServicePort) []netip.AddrPort {
	return i.listedAt(c, at, func(key cluster.Key, _ uint16) []netip.Addr { return i.foreignOf.Get(c, key) })
}

// waypointEndpoints are the Endpoints without strays and outsiders.
func (i *Ingest) waypointEndpoints(c *memo.Ctx, at Sent) []model.Endpoint {
	all, out := i.Endpoints.Get(c, at.ServicePort), i.strays.Get(c, at)
	if at.Word == OfConsumer {
		out = slices.Concat(out, i.outsiders.Get(c, at.ServicePort))
		slices.SortFunc(out, netip.AddrPort.Compare)
	}
	if len(out) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(e model.Endpoint) bool {
		_, found := slices.BinarySearchFunc(out, e.Address, netip.AddrPort.Compare)
		return found
	})
}
