// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"slices"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Pods come and go, and their addresses with them: most addresses that a node has dialled lead nowhere in the end.
// Envoy keeps 22 KB for each of those, to refuse at once. When nobody has dialled one for as long as the kernel
// remembers, Envoy is told to forget it, and keeps the name alone. The operator is asked for it as before, so Envoy has
// it again at the moment in which it leads somewhere, as when another pod has the address. Whoever dials it before that
// waits until Envoy's patience ends; with the next look that sees this, it is refused at once again.

// nowhere are the addresses that lead nowhere. It is pure, but for its own state.
type nowhere struct {
	// held are those that Envoy has, and since when it had nothing else to do for them than to have them: since it got
	// them, or somebody dialled them.
	held map[string]time.Time
	// forgotten are those that Envoy was told to forget, and when.
	forgotten map[string]time.Time
}

func noNowhere() nowhere {
	return nowhere{held: map[string]time.Time{}, forgotten: map[string]time.Time{}}
}

// begin notes that Envoy gets an address that leads nowhere, unless it has it.
func (n *nowhere) begin(address string, now time.Time) {
	delete(n.forgotten, address)
	if _, has := n.held[address]; !has {
		n.held[address] = now
	}
}

// end notes that an address leads somewhere, or that nobody asks for it any more.
func (n *nowhere) end(address string) {
	delete(n.held, address)
	delete(n.forgotten, address)
}

// note that somebody dialled an address. It tells whether Envoy should have it again.
func (n *nowhere) note(address string, at time.Time) (again bool) {
	if since, has := n.held[address]; has && at.After(since) {
		n.held[address] = at
	}
	since, forgot := n.forgotten[address]
	return forgot && at.Add(kernelTick).After(since)
}

// forget those that nobody dialled for as long as the kernel tells who did, once it was asked about all pods.
func (n *nowhere) forget(now time.Time) []string {
	var out []string
	for address, since := range n.held {
		if now.Sub(since) > names.DialledTime {
			out = append(out, address)
		}
	}
	for _, address := range out {
		delete(n.held, address)
		n.forgotten[address] = now
	}
	slices.Sort(out)
	return out
}

// forgetNowhere has Envoy forget addresses that lead nowhere, once DialledBy was told of all pods. r.mu is held.
func (r *Relay) forgetNowhere(now time.Time) {
	var updates []xds.Update
	for _, address := range r.nowhere.forget(now) {
		delete(r.room.addresses.held, address)
		updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeCluster, Name: address}))
	}
	if len(updates) == 0 {
		return
	}
	r.cache.Apply(scope, updates)
	r.save.Set()
	r.changed()
	r.countShared(0, 0)
	r.log.V(1).Info("the proxy forgot addresses that lead nowhere, and that nobody dialled for an hour", "addresses",
		len(updates))
}

// recall gives Envoy an address again that it was told to forget. r.mu is held.
func (r *Relay) recall(address string, now time.Time) {
	k := r.ensureType(xds.TypeCluster).known[address]
	r.nowhere.end(address)
	if k == nil || k.current == nil || !r.readmit(address) {
		return
	}
	r.nowhere.begin(address, now)
	r.cache.Apply(scope, []xds.Update{xds.Set(k.current)})
	r.save.Set()
	r.changed()
}

// readmit gives an address that was forgotten the room that it had. Where there is none it waits as others do, and the
// operator is asked again when there is. r.mu is held.
func (r *Relay) readmit(address string) bool {
	t := r.ensureType(xds.TypeCluster)
	if r.admit(t.id(address)) {
		return true
	}
	t.unsubscribe(address)
	delete(t.known, address)
	return false
}

// noteNowhere notes where an address leads that the operator answered, and tells whether Envoy gets it. r.mu is held.
func (r *Relay) noteNowhere(res *xds.Resource, now time.Time) (given bool) {
	if r.opts.MaxEndpoints == 0 || !isAddress(xds.ID{TypeURL: res.TypeURL(), Name: res.Name()}) {
		return true
	}
	address := res.Name()
	_, forgotten := r.nowhere.forgotten[address]
	switch leads := !upstream.LeadsNowhere(res.Any()); {
	case !leads && forgotten:
		return false
	case !leads:
		r.nowhere.begin(address, now)
		return true
	default:
		r.nowhere.end(address)
		return !forgotten || r.readmit(address)
	}
}

// forgot tells whether Envoy was told to forget an address that it asks for. r.mu is held.
func (r *Relay) forgot(id xds.ID) bool {
	_, yes := r.nowhere.forgotten[id.Name]
	return yes && isAddress(id)
}
