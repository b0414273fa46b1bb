// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"
	"sync"
)

// book tells observers which resources' acknowledgement state may have changed. All are told by one goroutine, one
// after the other: an answer of a proxy is mostly of interest to each, and to wake one costs less than to wake them.
type book struct {
	queue *notifier[Key]

	mu        sync.Mutex
	observers []*observer
}

type observer struct{ fn func(...Key) }

func newBook() *book {
	b := &book{}
	b.queue = newNotifier(b.tell)
	return b
}

// noteChanged never blocks; with no observers it costs nothing.
func (b *book) noteChanged(keys ...Key) {
	b.mu.Lock()
	listening := len(b.observers) > 0
	b.mu.Unlock()
	if listening {
		b.queue.add(keys...)
	}
}

func (b *book) tell(keys ...Key) {
	b.mu.Lock()
	observers := slices.Clone(b.observers)
	b.mu.Unlock()
	for _, o := range observers {
		o.fn(keys...)
	}
}

// OnChange calls fn whenever State of some resources may have changed: coalesced, one call at a time, outside all
// locks. fn must not block, and must not keep the slice. The returned function ends it; a call may still be under way
// then.
func (s *Server) OnChange(fn func(...Key)) (cancel func()) {
	b, added := s.book, &observer{fn}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.observers = append(b.observers, added)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.observers = slices.DeleteFunc(b.observers, func(o *observer) bool { return o == added })
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
