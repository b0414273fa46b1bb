// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// mark tells a stream that a name changed. The stream reads the content itself when it is about to send, so a change
// that is overtaken by another costs nothing.
type mark struct {
	ID         // named Wildcard: the type became ready
	rev uint64 // the scope's revision that made the change
	at  time.Time
}

// watcher is a stream, as the cache sees it. mark must not block and must not call back into the cache.
type watcher interface {
	mark(marks []mark)
}

// scope is the set of resources that one kind of proxy sees.
//
// Lock order: Cache.mu, scope.mu, then a stream's mark lock or that of the subscribed scopes (leaves). A stream's own
// lock is taken before scope.mu.
type scope struct {
	name     Scope
	streams  int // guarded by Cache.mu
	clusters *subscribedScopes

	mu    sync.RWMutex
	dead  bool // reaped: whoever still holds it must look the scope up again
	rev   uint64
	types map[string]*table
}

// watchers are the streams that subscribe to a name: few, and of a node's scope one. There are many names, so they are
// no map.
type watchers []watcher

// table holds one resource type of a scope.
type table struct {
	ready   bool
	entries map[string]*entry
	// named and wild index the subscribers, so that a change costs its subscribers only.
	named map[string]watchers
	wild  map[watcher]struct{}
}

// entry is a known resource; res is nil if it is known not to exist.
type entry struct {
	res *Resource
	// created is the revision that brought the name into existence, changed the one of its present content.
	created uint64
	changed uint64
	// good is what a client of the scope took last; see extension.go.
	good atomic.Pointer[Resource]
}

func newTable() *table {
	return &table{
		entries: map[string]*entry{},
		named:   map[string]watchers{},
		wild:    map[watcher]struct{}{},
	}
}

// entry returns nil for an unknown name, and on a nil table.
func (t *table) entry(name string) *entry {
	if t == nil {
		return nil
	}
	return t.entries[name]
}

func (t *table) idle() bool {
	return !t.ready && len(t.entries) == 0 && len(t.named) == 0 && len(t.wild) == 0
}

// ensureTable returns the table of a type, made if need be. The lock is held for writing.
func (s *scope) ensureTable(typeURL string) *table {
	t := s.types[typeURL]
	if t == nil {
		t = newTable()
		s.types[typeURL] = t
	}
	return t
}

// apply stores updates and marks the streams concerned, under one lock so that each stream gets the marks of one step
// together. ok is false if the scope is dead.
func (s *scope) apply(updates []Update, now time.Time) (changed []mark, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, false
	}
	s.rev++
	for _, u := range updates {
		if s.set(u) {
			changed = append(changed, mark{ID: u.ID, rev: s.rev, at: now})
		}
	}
	s.deliver(changed)
	return changed, true
}

// set stores one update and tells whether that changed anything.
func (s *scope) set(u Update) bool {
	if u.Name == "" || u.Name == Wildcard || u.TypeURL == "" {
		return false
	}
	if u.Resource != nil && u.Resource.id() != u.ID {
		return false
	}
	t := s.ensureTable(u.TypeURL)
	e := t.entries[u.Name]
	switch {
	case u.Resource == nil && len(t.named[u.Name]) == 0:
		// Nobody asked for it by name, so nobody needs to be told that it does not exist; keeping the fact would
		// make the cache grow with everything that ever was.
		delete(t.entries, u.Name)
		return e != nil && e.res != nil
	case e == nil:
		t.entries[u.Name] = &entry{res: u.Resource, created: s.rev, changed: s.rev}
		return true
	case e.res.Equal(u.Resource):
		return false
	default:
		if e.res == nil {
			e.created = s.rev
		}
		if u.Resource == nil {
			e.good.Store(nil)
		}
		e.res, e.changed = u.Resource, s.rev
		return true
	}
}

// deliver marks each subscriber once with all that concerns it.
func (s *scope) deliver(changed []mark) {
	if len(changed) == 1 { // the common case needs no grouping
		t := s.types[changed[0].TypeURL]
		for w := range t.wild {
			w.mark(changed)
		}
		for _, w := range t.named[changed[0].Name] {
			if _, both := t.wild[w]; !both {
				w.mark(changed)
			}
		}
		return
	}
	grouped := map[watcher][]mark{}
	for _, m := range changed {
		t := s.types[m.TypeURL]
		for w := range t.wild {
			grouped[w] = append(grouped[w], m)
		}
		for _, w := range t.named[m.Name] {
			if _, both := t.wild[w]; !both {
				grouped[w] = append(grouped[w], m)
			}
		}
	}
	for w, marks := range grouped {
		w.mark(marks)
	}
}

func (s *scope) setReady(typeURL string, now time.Time) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	t := s.ensureTable(typeURL)
	if t.ready {
		return true
	}
	t.ready = true
	s.rev++
	for w := range t.wild {
		w.mark([]mark{{ID: ID{typeURL, Wildcard}, rev: s.rev, at: now}})
	}
	return true
}

// subscribe adds w to the subscribers of a name (or Wildcard) and tells whether it is the first.
func (s *scope) subscribe(id ID, w watcher) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.ensureTable(id.TypeURL)
	if id.Name == Wildcard {
		t.wild[w] = struct{}{}
		return len(t.wild) == 1
	}
	set := t.named[id.Name]
	if !slices.Contains(set, w) {
		t.named[id.Name] = append(set, w)
	}
	if first = len(t.named[id.Name]) == 1; first && id.TypeURL == TypeCluster {
		s.clusters.add(id.Name, s)
	}
	return first
}

// unsubscribe removes w and tells whether it was the last.
func (s *scope) unsubscribe(id ID, w watcher) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.types[id.TypeURL]
	if t == nil {
		return false
	}
	if id.Name == Wildcard {
		delete(t.wild, w)
		last = len(t.wild) == 0
	} else {
		// Not in place: there is no room kept for those that have left.
		rest := slices.DeleteFunc(slices.Clone(t.named[id.Name]), func(o watcher) bool { return o == w })
		t.named[id.Name] = rest
		if last = len(rest) == 0; last {
			if id.TypeURL == TypeCluster {
				s.clusters.remove(id.Name, s)
			}
			delete(t.named, id.Name)
			if e := t.entries[id.Name]; e != nil && e.res == nil {
				delete(t.entries, id.Name)
			}
		}
	}
	if t.idle() {
		delete(s.types, id.TypeURL)
	}
	return last
}

// wanted tells whether a name (or Wildcard) has a subscriber.
func (s *scope) wanted(id ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.types[id.TypeURL]
	if t == nil {
		return false
	}
	if id.Name == Wildcard {
		return len(t.wild) > 0
	}
	return len(t.named[id.Name]) > 0
}

// subscribers returns the current resource and all that subscribe to it, by name or by wildcard.
func (s *scope) subscribers(id ID) (*Resource, []watcher) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.types[id.TypeURL]
	if t == nil {
		return nil, nil
	}
	var res *Resource
	e := t.entries[id.Name]
	if e != nil {
		res = e.res
	}
	out := make([]watcher, 0, len(t.wild)+len(t.named[id.Name]))
	for _, w := range t.named[id.Name] {
		out = append(out, w)
	}
	for w := range t.wild {
		// A wildcard only covers what exists.
		if res != nil && !slices.Contains(t.named[id.Name], w) {
			out = append(out, w)
		}
	}
	return res, out
}
