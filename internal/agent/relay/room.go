// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

const (
	// MaxEndpoints is for node proxies: they take some 150 MB.
	MaxEndpoints = 64000
	// leastEndpoints is how many each load assignment gets in any case. They don't count.
	leastEndpoints = 8
)

// room is for the endpoints that Envoy holds. Each cluster holds those of its load assignment for itself. An assignment
// for which there isn't enough room gets fewer endpoints than there are. It is pure, but for its own state.
type room struct {
	limit int // of used
	used  int // by all endpoints that count
	out   int // endpoints left out
	// clusters are names of clusters, with those of their assignments; together these cost so much, as addresses do.
	clusters map[string]string
	cost     int
	of       map[string]*allotment

	addresses addresses
}

// allotment is what there is of a load assignment, and what Envoy may have of it.
type allotment struct {
	clusters int // that have their endpoints from it
	cost     int // of an endpoint for each of them
	callers  int // namespaces that endpoints are told apart by
	total    int // endpoints that there are
	most     int // that it may have
}

func newRoom(endpoints, addresses int) *room {
	return &room{
		limit: endpoints, clusters: map[string]string{}, of: map[string]*allotment{}, addresses: newAddresses(addresses),
	}
}

// given is how many endpoints Envoy gets.
func (a *allotment) given() int { return min(a.total, a.most) }

// each is what one endpoint costs, for all clusters together.
func (a *allotment) each() int { return max(1, a.clusters) * a.cost }

// ofCluster is what each cluster that has its endpoints from it costs for that, as addresses do.
func (a *allotment) ofCluster() int { return a.cost + a.callers*costOfCaller }

// beyond is what it uses of the room.
func (a *allotment) beyond() int { return max(0, a.given()-leastEndpoints) * a.each() }

// change changes an assignment, and gives it as much as the others leave, up to a number. It forgets one that nothing
// is left of.
func (e *room) change(name string, upTo int, f func(*allotment)) *allotment {
	a := e.of[name]
	if a == nil {
		a = &allotment{cost: upstream.EndpointCost(name)}
		e.of[name] = a
	}
	e.used, e.out, e.cost = e.used-a.beyond(), e.out-(a.total-a.given()), e.cost-a.clusters*a.ofCluster()
	f(a)
	e.cost += a.clusters * a.ofCluster()
	e.grant(a, upTo)
	if a.clusters == 0 && a.total == 0 {
		delete(e.of, name)
	}
	return a
}

func (e *room) grant(a *allotment, upTo int) {
	a.most = min(upTo, leastEndpoints+(e.limit-e.used)/a.each())
	e.used, e.out = e.used+a.beyond(), e.out+a.total-a.given()
}

// refer notes where a cluster has its endpoints from; empty: nowhere. It returns the assignments that this changes.
func (e *room) refer(cluster, name string) []string {
	before := e.clusters[cluster]
	if before == name {
		return nil
	}
	delete(e.clusters, cluster)
	var changed []string
	if before != "" {
		e.change(before, math.MaxInt, func(a *allotment) { a.clusters-- })
		changed = append(changed, before)
	}
	if name != "" {
		e.clusters[cluster] = name
		e.change(name, math.MaxInt, func(a *allotment) { a.clusters++ })
		changed = append(changed, name)
	}
	return changed
}

// prefer gives the room anew: to what each pod dialled lately, those first that want least, and then to all else. It
// returns the assignments that may have another number of endpoints now.
func (e *room) prefer(pods [][]string) []string {
	before := map[string]int{}
	for name, a := range e.of {
		before[name] = a.given()
	}
	e.used, e.out = 0, 0
	for _, name := range e.order(pods) {
		e.grant(e.of[name], math.MaxInt)
	}
	maps.DeleteFunc(before, func(name string, given int) bool { return e.of[name].given() == given })
	return slices.Sorted(maps.Keys(before))
}

// order is the names of all assignments in the order in which they get room.
func (e *room) order(pods [][]string) []string {
	type wish struct {
		names []string
		cost  int
	}
	smallestFirst := func(a, b string) int { return cmp.Or(cmp.Compare(e.of[a].total, e.of[b].total), cmp.Compare(a, b)) }
	wishes := make([]wish, 0, len(pods))
	for _, clusters := range pods {
		var w wish
		for _, c := range clusters {
			if name, ok := e.clusters[c]; ok {
				w.names = append(w.names, name)
				w.cost += max(0, e.of[name].total-leastEndpoints) * e.of[name].cost
			}
		}
		slices.SortFunc(w.names, smallestFirst)
		wishes = append(wishes, w)
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(a.cost, b.cost) })
	wishes = append(wishes, wish{names: slices.SortedFunc(maps.Keys(e.of), smallestFirst)})
	var out []string
	seen := map[string]bool{}
	for _, w := range wishes {
		for _, name := range w.names {
			if !seen[name] {
				seen[name] = true
				out = append(out, name)
			}
		}
	}
	return out
}
