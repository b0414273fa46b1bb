// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"
	"sync"
)

// book tells listeners which resources' acknowledgement state may have changed.
type book struct {
	mu        sync.Mutex
	listeners map[int]*notifier[Key]
	next      int
}

func newBook() *book { return &book{listeners: map[int]*notifier[Key]{}} }

// noteChanged never blocks; with no listeners it costs nothing.
func (b *book) noteChanged(k Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.listeners {
		n.add(k)
	}
}

// OnChange calls fn whenever State of a resource may have changed: coalesced, one call at a time, outside all locks.
// The returned function ends it; a call may still be under way then.
func (s *Server) OnChange(fn func(Key)) (cancel func()) {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	b.listeners[id] = newNotifier(fn)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, id)
	}
}

// State returns what the connected subscribers of a resource made of its current version. A proxy that disconnects
// leaves the book; one that subscribes by wildcard counts for resources that exist. The scope may be AllOf a kind, for
// clusters.
func (s *Server) State(k Key) ResourceState {
	if k.Scope.ofAll() && k.TypeURL == TypeCluster {
		return s.joint(k)
	}
	sc := s.opts.Cache.lookup(k.Scope)
	if sc == nil {
		return ResourceState{}
	}
	res, watchers := sc.subscribers(k.ID)
	var out ResourceState
	if res != nil {
		out.Version = res.Version()
	}
	for _, w := range watchers {
		// Another server may share the cache: its streams are not in this book.
		if st, ok := w.(*stream); ok && st.srv == s {
			out.Proxies = append(out.Proxies, st.ack(k.ID, out.Version))
		}
	}
	slices.SortFunc(out.Proxies, func(a, b ProxyAck) int {
		return cmp.Or(cmp.Compare(a.Proxy.Pod, b.Proxy.Pod), cmp.Compare(a.Proxy.PodUID, b.Proxy.PodUID))
	})
	return out
}
