// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A waypoint sends to Services of other namespaces, too: those that its owner's routes lead to, and those that the
// routes of others do. Whoever has them says how many endpoints they have, and each takes 5 KB of the waypoint. So what
// it knows of other namespaces is bounded: of larger Services, some endpoints. No request fails for that, and those of
// its own namespace are as many as ever.

// How many endpoints a waypoint knows of the Services of one other namespace, and of all others together, each counted
// for each port that it sends to. Where they have more, it knows only some of those that have most.
const (
	MostEndpointsOfForeign  = 8192
	MostEndpointsOfForeigns = 65_536
)

// foreign is a namespace as a waypoint of another sees it.
type foreign struct {
	waypoint  cluster.Key // its Gateway
	namespace string
}

// foreignEndpoints is what ingest decides about endpoints of other namespaces than a waypoint's.
type foreignEndpoints struct {
	// askedForeign is how many there are of a namespace; shareForeign how many a waypoint knows of each.
	askedForeign *memo.Func[foreign, int]
	shareForeign *memo.Func[cluster.Key, int]
	// mostForeign is how many it knows of each port of a namespace's Services.
	mostForeign *memo.Func[foreign, int]
}

func (i *Ingest) defineForeignEndpoints(g *memo.Graph) {
	i.askedForeign = memo.Define(g, "askedForeign", same[int], i.askedOfForeign)
	i.shareForeign = memo.Define(g, "shareForeign", same[int], i.shareOfForeigns).Steady()
	i.mostForeign = memo.Define(g, "mostForeign", same[int], i.mostOfForeign).Steady()
}

// askedAt is how many endpoints proxies know of a port, about.
func (i *Ingest) askedAt(c *memo.Ctx, port model.ServicePort) int {
	key := port.ServiceName()
	svc := i.Service.Get(c, key)
	if svc == nil || len(svc.Ports) == 0 {
		return 0
	}
	return min(i.asked.Get(c, key)/len(svc.Ports), i.most.Get(c, key))
}

// askedAtPorts is that of all ports of a namespace that a waypoint sends to.
func (i *Ingest) askedAtPorts(c *memo.Ctx, k foreign) (out []int) {
	w := i.Waypoint.Get(c, k.waypoint)
	if w == nil {
		return nil
	}
	first, _ := slices.BinarySearchFunc(w.Backends, k.namespace, func(p model.ServicePort, namespace string) int {
		return cmp.Compare(p.Namespace, namespace)
	})
	for _, port := range w.Backends[first:] {
		if port.Namespace != k.namespace {
			break
		}
		out = append(out, i.askedAt(c, port))
	}
	return out
}

func (i *Ingest) askedOfForeign(c *memo.Ctx, k foreign) (out int) {
	for _, n := range i.askedAtPorts(c, k) {
		out += n
	}
	return out
}

// shareOfForeigns is an equal part where all want too much, so that nobody's many namespaces take from one that has
// little.
func (i *Ingest) shareOfForeigns(c *memo.Ctx, waypoint cluster.Key) int {
	var asked []int
	for _, namespace := range i.sendsTo.Get(c, waypoint) {
		if namespace != waypoint.Namespace {
			asked = append(asked, i.askedForeign.Get(c, foreign{waypoint, namespace}))
		}
	}
	return steady(min(MostEndpointsOfForeign, equalPart(asked, MostEndpointsOfForeigns)))
}

func (i *Ingest) mostOfForeign(c *memo.Ctx, k foreign) int {
	share := i.shareForeign.Get(c, k.waypoint)
	if i.askedForeign.Get(c, k) <= share {
		return math.MaxInt
	}
	return steady(equalPart(i.askedAtPorts(c, k), share))
}

// MostEndpointsAt is how many endpoints of a port a waypoint knows; math.MaxInt if all.
func (i *Ingest) MostEndpointsAt(c *memo.Ctx, waypoint cluster.Key, port model.ServicePort) int {
	if port.Namespace == waypoint.Namespace {
		return math.MaxInt
	}
	return i.mostForeign.Get(c, foreign{waypoint, port.Namespace})
}

// EndpointsAt are those of a port that a waypoint knows.
func (i *Ingest) EndpointsAt(c *memo.Ctx, w *model.Waypoint, port model.ServicePort) []model.Endpoint {
	return Some(i.WaypointEndpoints.Get(c, Sent{port, WordFor(w, port)}), i.MostEndpointsAt(c, w.Name, port))
}

// Some of the endpoints of a port, as many as there may be: in an order that is as good as random, so that every node
// and zone has its part, and yet the same at all times.
func Some(list []model.Endpoint, most int) []model.Endpoint {
	if len(list) <= most {
		return list
	}
	type placed struct {
		at uint64
		n  int
	}
	places := make([]placed, 0, len(list))
	for n := range list {
		places = append(places, placed{place(&list[n]), n})
	}
	slices.SortFunc(places, func(a, b placed) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
	places = places[:most]
	slices.SortFunc(places, func(a, b placed) int { return cmp.Compare(a.n, b.n) }) // by address, as they were
	out := make([]model.Endpoint, 0, most)
	for _, p := range places {
		out = append(out, list[p.n])
	}
	return out
}

// partialIn tells whether a waypoint knows only some endpoints of a port.
func (i *Ingest) partialIn(c *memo.Ctx, waypoint cluster.Key, port model.ServicePort) bool {
	most := i.MostEndpointsAt(c, waypoint, port)
	return most < math.MaxInt && i.askedAt(c, port) > most
}

// partialAt is the first waypoint that knows only some endpoints of a port; "" if there is none.
func (i *Ingest) partialAt(c *memo.Ctx, port model.ServicePort) string {
	for _, s := range i.sendersTo.Get(c, port) {
		if i.partialIn(c, s.gateway, port) {
			return s.gateway.String()
		}
	}
	return ""
}

// partlyKnown says of which of a route's backends a waypoint knows only some endpoints; "" if of none.
func (i *Ingest) partlyKnown(c *memo.Ctx, r *Route, waypoint cluster.Key) string {
	var partly []cluster.Key
	for _, port := range ruleBackends(r.Rules) {
		if !slices.Contains(partly, port.ServiceName()) && i.partialIn(c, waypoint, port) {
			partly = append(partly, port.ServiceName())
		}
	}
	if len(partly) == 0 {
		return ""
	}
	slices.SortFunc(partly, byName)
	more := ""
	if n := len(partly) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("; waypoint %s knows only some endpoints of Service %s%s: in the waypoint of another namespace, "+
		"the Services of one namespace may have %d, and those of all together %d, in equal parts (use fewer or smaller "+
		"Services)",
		waypoint, partly[0], more, MostEndpointsOfForeign, MostEndpointsOfForeigns)
}
