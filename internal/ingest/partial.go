// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"math/bits"
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Each port of a Service has a list of all endpoints, so a few objects could make lists that take all the memory and
// time that the operator has.

// How many endpoints one Service may have, and all of a namespace, each counted for each port. Where there are more,
// proxies know only some of the endpoints of those Services that have most. The first bounds what a change costs, the
// other what is kept.
const (
	MostEndpointsOfService   = 1 << 16
	MostEndpointsOfNamespace = 200_000
)

// askedEndpoints is how many endpoints a Service has, each counted for each port. It is rounded down, by an eighth at
// most, so that few changes show.
func (i *Ingest) askedEndpoints(c *memo.Ctx, key cluster.Key) int {
	svc := i.Service.Get(c, key)
	if svc == nil {
		return 0
	}
	n := 0
	for _, k := range i.store.EndpointSlices.By(c, cluster.ByService, key.Namespace+"/"+key.Name) {
		if s, ok := i.store.EndpointSlices.Get(c, k); ok {
			n += len(s.Endpoints)
		}
	}
	n *= len(svc.Ports)
	return n >> max(0, bits.Len(uint(n))-4) << max(0, bits.Len(uint(n))-4)
}

// shareOfServices is how many endpoints each Service of a namespace may have, likewise.
func (i *Ingest) shareOfServices(c *memo.Ctx, namespace string) int {
	keys := i.store.Services.By(c, cluster.ByNamespace, namespace)
	asked := make([]int, 0, len(keys))
	for _, key := range keys {
		asked = append(asked, i.asked.Get(c, key))
	}
	return steady(min(MostEndpointsOfService, equalPart(asked, MostEndpointsOfNamespace)))
}

// steady is a power of two, so that it stays while a little changes, and one at least.
func steady(part int) int { return 1 << (bits.Len(uint(max(1, part))) - 1) }

// mostAtPort is how many endpoints proxies know of each port of a Service.
func (i *Ingest) mostAtPort(c *memo.Ctx, key cluster.Key) int {
	share := i.endpointShare.Get(c, key.Namespace)
	if i.asked.Get(c, key) <= share {
		return math.MaxInt
	}
	return max(1, share/len(i.Service.Get(c, key).Ports))
}

// LeftOut says which endpoints of a Service are left out. The zero value: none.
type LeftOut struct {
	// TooMany: proxies know only some of them.
	TooMany bool
	// Stray is one that waypoints leave out, for they would get past the guard of its pod; "" if there is none.
	Stray string
	// Outsider is one that waypoints of other namespaces leave out, for it is no pod's of the Service's namespace; "" if
	// there is none.
	Outsider string
	// Waypoint of another namespace that knows only some of them; "" if there is none.
	Waypoint string
}

func (i *Ingest) leftOut(c *memo.Ctx, key cluster.Key) LeftOut {
	out := LeftOut{TooMany: i.most.Get(c, key) < math.MaxInt}
	for _, port := range i.allPorts(c, key) {
		if out.Waypoint == "" {
			out.Waypoint = i.partialAt(c, port)
		}
		for _, word := range i.wordsFor(c, port) {
			if strays := i.strays.Get(c, Sent{port, word}); len(strays) > 0 && out.Stray == "" {
				pod := i.Claims.Get(c, strays[0].Addr()).holder
				out.Stray = fmt.Sprintf("%s, pod %s, of port %d", strays[0], pod, port.Port)
			}
			if word != OfConsumer || out.Outsider != "" {
				continue
			}
			if outsiders := i.outsiders.Get(c, port); len(outsiders) > 0 {
				out.Outsider = fmt.Sprintf("%s of port %d", outsiders[0], port.Port)
			}
		}
	}
	return out
}

// chosen is the backing of a Service in another order: those first that proxies are to know. It is as good as random,
// so that every node and zone has its part, and yet the same for all ports and times.
func (i *Ingest) chosen(c *memo.Ctx, key cluster.Key) *backing {
	from := i.backingOf.Get(c, key)
	out := &backing{slices: from.slices, endpoints: slices.Clone(from.endpoints)}
	places := make(map[*model.Endpoint]uint64, len(out.endpoints))
	for _, e := range out.endpoints {
		places[e.Endpoint] = place(e.Endpoint)
	}
	slices.SortStableFunc(out.endpoints,
		func(a, b backed) int { return cmp.Compare(places[a.Endpoint], places[b.Endpoint]) })
	return out
}

// place of an endpoint among those of its Service, those that drain last.
func place(e *model.Endpoint) uint64 {
	addr := e.Address.Addr().As16()
	h := fnv.New64a()
	h.Write(addr[:])
	out := h.Sum64() >> 1
	if e.Draining {
		out += 1 << 63
	}
	return out
}
