// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Cache holds the resources of every scope, and who waits for which. It is safe for concurrent use; no call blocks on a
// proxy.
type Cache struct {
	mu     sync.RWMutex
	scopes map[Scope]*scope
	hooks  []func(scope Scope, changed []mark)
	// clusters finds the scopes in which a cluster is subscribed to by name.
	clusters subscribedScopes
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{scopes: map[Scope]*scope{}, clusters: subscribedScopes{of: map[string]map[*scope]struct{}{}}}
}

// Apply sets resources of a scope as one atomic step: a stream sees all of the updates or none. Only streams of that
// scope that subscribe to a name whose content changed are woken. An update whose resource has another name or type
// than the update says is ignored.
func (c *Cache) Apply(name Scope, updates []Update) {
	if len(updates) == 0 {
		return
	}
	var changed []mark
	for done := false; !done; {
		changed, done = c.ensureScope(name).apply(updates, time.Now())
	}
	c.notify(name, changed)
}

// Ready says that the wildcard contents of a type are complete. Until then an initial wildcard subscription is not
// answered, so that a proxy never starts from a partial list, and nothing is removed from a proxy that reconnects.
func (c *Cache) Ready(name Scope, typeURL string) {
	for done := false; !done; {
		done = c.ensureScope(name).setReady(typeURL, time.Now())
	}
}

// Get returns a resource. known is false if nothing was ever applied under the name; a known nil resource does not
// exist.
func (c *Cache) Get(k Key) (r *Resource, known bool) {
	s := c.lookup(k.Scope)
	if s == nil {
		return nil, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.types[k.TypeURL].entry(k.Name)
	if e == nil {
		return nil, false
	}
	return e.res, true
}

// List returns the existing resources of a type, sorted by name.
func (c *Cache) List(name Scope, typeURL string) []*Resource {
	s := c.lookup(name)
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.types[typeURL]
	if t == nil {
		return nil
	}
	out := make([]*Resource, 0, len(t.entries))
	for _, e := range t.entries {
		if e.res != nil {
			out = append(out, e.res)
		}
	}
	slices.SortFunc(out, func(a, b *Resource) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// Scopes returns all scopes, sorted.
func (c *Cache) Scopes() []Scope {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]Scope, 0, len(c.scopes))
	for name := range c.scopes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Forget makes a resource unknown that nobody subscribes to, so that the cache holds only what is kept up to date. One
// that has subscribers after all is left as it is.
func (c *Cache) Forget(k Key) {
	c.trim(k.Scope, func(s *scope) {
		t, name := s.types[k.TypeURL], k.Name
		if t == nil || len(t.named[name]) > 0 || len(t.wild) > 0 && t.entries[name] != nil && t.entries[name].res != nil {
			return
		}
		delete(t.entries, name)
		if t.idle() {
			delete(s.types, k.TypeURL)
		}
	})
}

// Drop forgets the contents of a scope. Connected proxies keep what they have: the resources are unknown now, not gone.
func (c *Cache) Drop(name Scope) {
	c.trim(name, func(s *scope) {
		for url, t := range s.types {
			t.ready, t.entries = false, map[string]*entry{}
			if t.idle() {
				delete(s.types, url)
			}
		}
	})
}

// trim takes something from a scope, if there is one, and forgets it if nothing is left.
func (c *Cache) trim(name Scope, take func(*scope)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.scopes[name]
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	take(s)
	c.reap(s)
}

// lookup returns the scope or nil.
func (c *Cache) lookup(name Scope) *scope {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.scopes[name]
}

// ensureScope returns the scope, made if need be. It may be reaped before the caller locks it; see scope.dead.
func (c *Cache) ensureScope(name Scope) *scope {
	if s := c.lookup(name); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.scopes[name]
	if s == nil {
		s = &scope{name: name, types: map[string]*table{}, clusters: &c.clusters}
		c.scopes[name] = s
	}
	return s
}

// attach keeps the scope alive for a stream, until detach.
func (c *Cache) attach(name Scope) *scope {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.scopes[name]
	if s == nil {
		s = &scope{name: name, types: map[string]*table{}, clusters: &c.clusters}
		c.scopes[name] = s
	}
	s.streams++
	return s
}

// detach ends an attach. All of the stream's subscriptions must have ended before.
func (c *Cache) detach(s *scope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.streams--
	s.mu.Lock()
	defer s.mu.Unlock()
	c.reap(s)
}

// reap forgets an empty scope that no stream uses. Both locks are held.
func (c *Cache) reap(s *scope) {
	if s.streams > 0 || len(s.types) > 0 {
		return
	}
	s.dead = true
	delete(c.scopes, s.name)
}

// onApply registers fn to be told what changed, after each Apply and outside all locks.
func (c *Cache) onApply(fn func(scope Scope, changed []mark)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks = append(c.hooks, fn)
}

func (c *Cache) notify(name Scope, changed []mark) {
	if len(changed) == 0 {
		return
	}
	c.mu.RLock()
	hooks := c.hooks
	c.mu.RUnlock()
	for _, fn := range hooks {
		fn(name, changed)
	}
}
