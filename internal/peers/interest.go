// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"sync"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// interests unites what proxies of this replica want with what the others' proxies have, so that neither takes a
// resource away from the other.
type interests struct {
	fn func(xds.Interest) // called with the lock held, so in order; it only queues

	mu     sync.Mutex
	local  map[xds.Key]struct{}
	remote map[xds.Key]int // replicas that told of it
}

func newInterests(fn func(xds.Interest)) *interests {
	if fn == nil {
		fn = func(xds.Interest) {}
	}
	return &interests{fn: fn, local: map[xds.Key]struct{}{}, remote: map[xds.Key]int{}}
}

// here takes what a local proxy wants or wants no more. What no other replica tells of passes through.
func (n *interests) here(i xds.Interest) {
	k := i.Key
	if catalogue.PartOf(k) == catalogue.Nobody {
		n.fn(i)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i.Wanted {
		n.local[k] = struct{}{}
		n.fn(i)
		return
	}
	delete(n.local, k)
	if n.remote[k] == 0 {
		n.fn(i)
	}
}

func (n *interests) add(k xds.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remote[k]++
	if _, local := n.local[k]; !local && n.remote[k] == 1 {
		n.fn(xds.Interest{Key: k, Wanted: true})
	}
}

// remove undoes an add. disconnected: the scope's proxies are gone and likely to come back.
func (n *interests) remove(k xds.Key, disconnected bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.remote[k]--; n.remote[k] > 0 {
		return
	}
	delete(n.remote, k)
	if _, local := n.local[k]; !local {
		n.fn(xds.Interest{Key: k, Disconnected: disconnected})
	}
}
