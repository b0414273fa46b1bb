// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"sync"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Interests unites what proxies of this replica want with what the others' proxies have, so that neither takes a
// resource away from the other. It exists before the xDS server, which tells it the one, and the Book, which tells it
// the other.
type Interests struct {
	fn func(xds.Interest) // called with the lock held, so in order; it only queues

	mu     sync.Mutex
	local  map[xds.Key]struct{}
	remote map[xds.Key]int // replicas that told of it
}

// NewInterests returns one that tells fn what is to be derived here. fn must not block.
func NewInterests(fn func(xds.Interest)) *Interests {
	return &Interests{fn: fn, local: map[xds.Key]struct{}{}, remote: map[xds.Key]int{}}
}

// Here takes what a local proxy wants or wants no more; it is for xds.Options.OnInterest. What no other replica tells
// of passes through.
func (n *Interests) Here(i xds.Interest) {
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

func (n *Interests) add(k xds.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remote[k]++
	if _, local := n.local[k]; !local && n.remote[k] == 1 {
		n.fn(xds.Interest{Key: k, Wanted: true})
	}
}

// remove undoes an add. disconnected: the scope's proxies are gone and likely to come back.
func (n *Interests) remove(k xds.Key, disconnected bool) {
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
