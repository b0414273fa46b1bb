// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"
)

// handOver bounds the keys of one call: whoever takes them may hold a lock meanwhile.
const handOver = 100

// notifier hands keys to a function: each key at most once per hand-over, in order of first addition, one call at a
// time. What is added together is handed over together. It holds no more than the distinct keys, and a goroutine runs
// only while there is something to hand over.
type notifier[K comparable] struct {
	fn func(...K)

	mu      sync.Mutex
	queue   []K
	queued  map[K]struct{}
	running bool
}

func newNotifier[K comparable](fn func(...K)) *notifier[K] {
	return &notifier[K]{fn: fn, queued: map[K]struct{}{}}
}

// add never blocks and may be called with locks held: fn runs on another goroutine.
func (n *notifier[K]) add(keys ...K) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range keys {
		if _, ok := n.queued[key]; !ok {
			n.queued[key] = struct{}{}
			n.queue = append(n.queue, key)
		}
	}
	if !n.running && len(n.queue) > 0 {
		n.running = true
		go n.run()
	}
}

func (n *notifier[K]) run() {
	for {
		n.mu.Lock()
		batch := n.queue
		n.queue = nil
		if len(batch) == 0 {
			n.running = false
			n.mu.Unlock()
			return
		}
		// A key added while its own call runs is handed over again: its call may have read the older state.
		clear(n.queued)
		n.mu.Unlock()
		for keys := range slices.Chunk(batch, handOver) {
			n.fn(keys...)
		}
	}
}
