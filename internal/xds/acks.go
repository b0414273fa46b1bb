// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// book tells listeners which resources' acknowledgement state may have changed.
type book struct {
	mu        sync.Mutex
	listeners map[int]*notifier[interestKey]
	next      int
}

func newBook() *book { return &book{listeners: map[int]*notifier[interestKey]{}} }

// changed never blocks; with no listeners it costs nothing.
func (b *book) changed(scope, typeURL, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.listeners {
		n.add(interestKey{scope, typeURL, name})
	}
}

// OnChange calls fn whenever State of a resource may have changed: coalesced, one call at a time, outside all locks.
// The returned function ends it; a call may still be under way then.
func (s *Server) OnChange(fn func(scope, typeURL, name string)) (cancel func()) {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	b.listeners[id] = newNotifier(func(k interestKey) { fn(k.scope, k.typeURL, k.name) })
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, id)
	}
}

// State returns what the connected subscribers of a resource made of its current version. A proxy that disconnects
// leaves the book; one that subscribes by wildcard counts for resources that exist. The scope may be AllOf a kind, for
// clusters.
func (s *Server) State(scope, typeURL, name string) ResourceState {
	if strings.HasSuffix(scope, anyScope) && typeURL == TypeCluster {
		return s.joint(scope, name)
	}
	sc := s.opts.Cache.lookup(scope)
	if sc == nil {
		return ResourceState{}
	}
	res, watchers := sc.subscribers(typeURL, name)
	var out ResourceState
	if res != nil {
		out.Version = res.Version()
	}
	for _, w := range watchers {
		// Another server may share the cache: its streams are not in this book.
		if st, ok := w.(*stream); ok && st.srv == s {
			out.Proxies = append(out.Proxies, st.ack(typeURL, name, out.Version))
		}
	}
	slices.SortFunc(out.Proxies, func(a, b ProxyAck) int {
		return cmp.Or(cmp.Compare(a.Proxy.Pod, b.Proxy.Pod), cmp.Compare(a.Proxy.PodUID, b.Proxy.PodUID))
	})
	return out
}
