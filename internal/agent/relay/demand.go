// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// On a node each address that a pod dials is a cluster that Envoy asks for by name, and keeps for good: without a
// bound, one pod that dials every address fills the memory of a proxy that all pods of the node share. So Envoy has
// as many as there is room for (room.admit). An address that finds none waits until it is known which pod dialled
// what (Prefer): it is given to a pod that has less than its part, and Envoy gives others back for it. They are those
// that a pod with more than its part dialled longest ago, or that nobody dialled lately. Open connections go on:
// Envoy lets them end before it forgets where they went. To dial such an address again is to ask for it.

// namesPerAddress is how many addresses Envoy may ask for in all, for each that it may have. Each costs it 1 KB, for
// good.
const namesPerAddress = 5

// demand bounds those, and the agent's memory of them. A cluster beyond that does not exist.
//
// Its lock is a leaf: the server asks with locks held that the relay takes after its own.
type demand struct {
	limit   int
	log     logr.Logger
	refused prometheus.Counter

	mu     sync.Mutex
	names  map[string]struct{}
	warned bool
}

// admit implements xds.Options.Admit.
func (d *demand) admit(_ xds.Proxy, id xds.ID) bool {
	if id.TypeURL != xds.TypeCluster || id.Name == xds.Wildcard {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, again := d.names[id.Name]; again {
		return true
	}
	if len(d.names) >= d.limit {
		d.refused.Inc()
		if !d.warned {
			d.warned = true
			d.log.Error(nil, "Envoy has reached its limit of on-demand clusters; connections to further addresses fail. "+
				"Find the pod that dials so many, and restart the pod of this proxy to start over", "limit", d.limit)
		}
		return false
	}
	d.names[id.Name] = struct{}{}
	return true
}

// release makes room for another name.
func (d *demand) release(id xds.ID) {
	if id.TypeURL != xds.TypeCluster {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, id.Name)
}

// isAddress tells whether a resource is a cluster that Envoy asks for by name.
func isAddress(id xds.ID) bool { return id.TypeURL == xds.TypeCluster && id.Name != xds.Wildcard }

// Asks is filled when an address finds no room, and a connection waits for Prefer to say what becomes of it.
func (r *Relay) Asks() <-chan struct{} { return r.asks }

// admit gives Envoy what it asks for, if there is room for it now, and tells whether there is. r.mu is held.
func (r *Relay) admit(id xds.ID) bool {
	if !isAddress(id) {
		return true
	}
	defer r.countShared(0, 0)
	if r.room.admit(id.Name) {
		return true
	}
	r.asks.Set()
	return false
}

// share decides which addresses Envoy has, and answers those who wait. r.mu is held.
func (r *Relay) share(pods [][]string) {
	back, given := r.room.share(pods)
	var updates []xds.Update
	for _, name := range back {
		updates = append(updates, r.takeBack(name))
	}
	for _, name := range given {
		r.room.hold(name)
		r.ensureType(xds.TypeCluster).subscribe(name)
		r.hurry.Set()
		r.wake.Set()
	}
	denied := 0
	for name, w := range r.room.addresses.waiting {
		if !w.answered {
			w.answered = true
			denied++
			updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeCluster, Name: name}))
		}
	}
	r.cache.Apply(scope, updates)
	if len(updates) > 0 {
		r.save.Set()
	}
	r.countShared(len(back), denied)
}

// takeBack forgets an address that Envoy had, and returns what tells Envoy so. r.mu is held.
func (r *Relay) takeBack(name string) xds.Update {
	t := r.ensureType(xds.TypeCluster)
	r.room.suspend(name)
	t.unsubscribe(name)
	delete(t.known, name)
	r.forgetEndpoints(t.id(name))
	return xds.Gone(t.id(name))
}

// reconsider takes back those of the addresses that changed which turn out to cost more than there is room for. What
// Envoy would get of them is left out of the updates. r.mu is held.
func (r *Relay) reconsider(in *received, updates []xds.Update, changed map[string]bool) []xds.Update {
	over := r.room.excess(r.room.clustersOf(changed))
	if len(over) == 0 {
		return updates
	}
	left := map[xds.ID]bool{}
	var back []xds.Update
	for _, name := range over {
		assignment := r.room.clusters[name]
		back = append(back, r.takeBack(name))
		left[xds.ID{TypeURL: xds.TypeCluster, Name: name}] = true
		if a := r.room.of[assignment]; a == nil || a.clusters == 0 {
			left[xds.ID{TypeURL: xds.TypeEndpoint, Name: assignment}] = true
		}
	}
	updates = slices.DeleteFunc(updates, func(u xds.Update) bool {
		if left[u.ID] {
			delete(in.waiting, u.Name)
		}
		return left[u.ID]
	})
	r.asks.Set()
	r.countShared(len(over), 0)
	return append(updates, back...)
}

// countShared keeps metrics and log up to date. r.mu is held.
func (r *Relay) countShared(back, denied int) {
	a := &r.room.addresses
	r.metrics.onDemand.Set(float64(len(a.held)))
	r.metrics.waiting.Set(float64(len(a.waiting)))
	r.metrics.forgotten.Set(float64(len(r.nowhere.forgotten)))
	r.metrics.takenBack.Add(float64(back))
	r.metrics.refused.Add(float64(denied))
	if len(a.waiting) > 0 && !r.saidFull {
		r.saidFull = true
		r.log.Info("the proxy has reached its limit of addresses; each pod that dials some has an equal share, and "+
			"addresses beyond it, or not dialled for long, are taken back when other pods need room. New connections to "+
			"refused addresses fail, open ones continue. The access log shows which pod dials so many",
			"addresses", len(a.held), "takenBack", back, "refused", denied)
	}
	if len(a.waiting) == 0 {
		r.saidFull = false
	}
}
