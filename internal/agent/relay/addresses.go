// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"maps"
	"slices"
)

// What an address costs Envoy, in units of 13 KB: itself; its endpoints besides (allotment.cost); and what tells the
// callers of each namespace apart that go another way.
const (
	costOfAddress = 2
	costOfCaller  = 1
	// costOfUnknown is for one that nothing is known of: most are Services.
	costOfUnknown = 3
)

// addresses are the clusters that Envoy asks for by name: on a node, one for each address that a pod dials. It asks
// once, and keeps 26 KB and more of each that it has, for good. What it gets no more costs it 1 KB, and it can have
// it again at any time.
type addresses struct {
	limit int
	held  map[string]struct{}
	// waiting are those that there was no room for, or that were taken back.
	waiting map[string]*asked
}

// asked is an address that Envoy asked for and doesn't have.
type asked struct {
	cost int
	// answered: a connection to it fails at once. The others wait, for a decision that is about to come.
	answered bool
}

func newAddresses(most int) addresses {
	return addresses{limit: most * costOfAddress, held: map[string]struct{}{}, waiting: map[string]*asked{}}
}

// price of an address that Envoy has, or would have.
func (e *room) price(name string) int {
	if w := e.addresses.waiting[name]; w != nil {
		return w.cost
	}
	if a := e.of[e.clusters[name]]; a != nil {
		return costOfAddress + a.ofCluster()
	}
	return costOfAddress
}

// taken is what all addresses cost.
func (e *room) taken() int { return len(e.addresses.held)*costOfAddress + e.cost }

// admit gives Envoy an address if there is room for it. If not, the address waits.
func (e *room) admit(name string) bool {
	a := &e.addresses
	if _, again := a.held[name]; again {
		return true
	}
	if w := a.waiting[name]; w != nil {
		w.answered = false
		return false
	}
	if e.taken()+costOfAddress > a.limit {
		a.waiting[name] = &asked{cost: costOfUnknown}
		return false
	}
	a.held[name] = struct{}{}
	return true
}

// hold notes an address that Envoy has.
func (e *room) hold(name string) {
	delete(e.addresses.waiting, name)
	e.addresses.held[name] = struct{}{}
}

// suspend notes that an address is taken back. What it had is still to be forgotten: refer.
func (e *room) suspend(name string) {
	e.addresses.waiting[name] = &asked{cost: e.price(name), answered: true}
	delete(e.addresses.held, name)
}

// forget an address that Envoy doesn't ask for any more.
func (e *room) forget(name string) {
	delete(e.addresses.held, name)
	delete(e.addresses.waiting, name)
}

// excess are addresses among those given, the dearest first, without which all others have room.
func (e *room) excess(of []string) []string {
	over := e.taken() - e.addresses.limit
	if over <= 0 {
		return nil
	}
	slices.SortFunc(of, func(a, b string) int { return cmp.Or(cmp.Compare(e.price(b), e.price(a)), cmp.Compare(a, b)) })
	for n, name := range of {
		if over -= e.price(name); over <= 0 {
			return of[:n+1]
		}
	}
	return of
}

// clustersOf are the clusters among those changed, and those that have their endpoints from one of them.
func (e *room) clustersOf(changed map[string]bool) []string {
	var out []string
	for cluster, name := range e.clusters {
		if _, held := e.addresses.held[cluster]; held && (changed[cluster] || changed[name]) {
			out = append(out, cluster)
		}
	}
	return out
}

// share gives the addresses anew: to what each pod dialled lately, the last one first, until it has an equal part of
// what there is. What some don't need the others have (max-min fairness). What a pod has goes before what it asks
// for, so that one that asks for ever more has nothing to gain. Then comes what nobody dialled lately.
func (e *room) share(pods [][]string) (back, given []string) {
	a := &e.addresses
	chosen, left := map[string]bool{}, a.limit
	choose := func(name string, within int) int {
		price := e.price(name)
		if chosen[name] || price > within {
			return 0
		}
		chosen[name] = true
		left -= price
		return price
	}
	wishes, part, enough := e.wishes(pods), 0, true
	for n, names := range wishes {
		if enough {
			part = left / (len(wishes) - n)
		}
		within := part
		for _, name := range names {
			within -= choose(name, within)
			enough = enough && chosen[name]
		}
	}
	// What is left because something dear didn't fit into a part.
	for _, held := range []bool{true, false} {
		for _, name := range slices.Concat(wishes...) {
			if _, has := a.held[name]; has == held {
				choose(name, left)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.held)) {
		if choose(name, left); !chosen[name] {
			back = append(back, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.waiting)) {
		if chosen[name] {
			given = append(given, name)
		}
	}
	return back, given
}

// wishes are the addresses of each pod that dialled some, in the order in which it gets them; the pod that wants
// least comes first.
func (e *room) wishes(pods [][]string) [][]string {
	type wish struct {
		names []string
		cost  int
	}
	var all []wish
	for _, dialled := range pods {
		var has, asks []string
		cost := 0
		for _, name := range dialled {
			switch _, held := e.addresses.held[name]; {
			case held:
				has = append(has, name)
			case e.addresses.waiting[name] != nil:
				asks = append(asks, name)
			default:
				continue
			}
			cost += e.price(name)
		}
		if cost > 0 {
			all = append(all, wish{append(has, asks...), cost})
		}
	}
	slices.SortStableFunc(all, func(a, b wish) int { return cmp.Compare(a.cost, b.cost) })
	out := make([][]string, 0, len(all))
	for _, w := range all {
		out = append(out, w.names)
	}
	return out
}
