// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"time"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// This file follows what proxies want, and derives nothing else.

// scope is what the proxies of one scope have asked for.
type scope struct {
	wildcards map[string][]string // by type URL: the names that the set has now
	wishes    map[xds.ID]wish     // what is left of each
	open      int                 // how many of them are
	// orphans are names whose proxies went away without a word, and since when; sweep runs while there are some, or
	// nothing is wanted.
	orphans map[xds.ID]time.Time
	sweep   *time.Timer
}

// wish for a name: what of it holds.
type wish uint8

const (
	wishNamed wish = 1 << iota // it was asked for by name, and is kept up to date
	wishOpen                   // some proxy wants it
)

// wish adds to what holds of a name, and takes from it.
func (s *scope) wish(id xds.ID, add, take wish) {
	was := s.wishes[id]
	now := was&^take | add
	s.open += int(now&wishOpen/wishOpen) - int(was&wishOpen/wishOpen)
	if s.wishes[id] = now; now == 0 {
		delete(s.wishes, id)
	}
}

// named tells whether a name was asked for, and is kept up to date therefore.
func (s *scope) named(id xds.ID) bool { return s.wishes[id]&wishNamed != 0 }

func (e *Engine) interest(i xds.Interest) {
	s := e.scopes[i.Scope]
	k := i.Key
	switch {
	case i.Wanted:
		if s == nil {
			s = &scope{
				wildcards: map[string][]string{}, wishes: map[xds.ID]wish{}, orphans: map[xds.ID]time.Time{},
			}
			e.scopes[i.Scope] = s
		}
		delete(s.orphans, k.ID)
		s.wish(k.ID, wishOpen, 0)
		e.want(s, i)
	case s == nil:
	case i.Disconnected:
		s.wish(k.ID, 0, wishOpen)
		if s.named(k.ID) {
			s.orphans[k.ID] = time.Now()
		}
		e.sweepLater(i.Scope, s, graceAfterDisconnect)
	default:
		named := s.named(k.ID)
		s.wish(k.ID, 0, wishOpen|wishNamed)
		delete(s.orphans, k.ID)
		if named {
			e.release(s, k)
		}
	}
}

// sweepLater has the scope swept after a time, unless it will be anyway.
func (e *Engine) sweepLater(name xds.Scope, s *scope, after time.Duration) {
	if s.sweep == nil {
		s.sweep = time.AfterFunc(after, func() { e.do(func(e *Engine) { e.sweep(name, s) }) })
	}
}

// sweep lets go what no proxy came back for within the time of grace: names one by one, and the scope once nothing is
// wanted of it.
func (e *Engine) sweep(name xds.Scope, s *scope) {
	s.sweep = nil
	if e.scopes[name] != s {
		return
	}
	var next time.Duration
	for id, since := range s.orphans {
		if left := graceAfterDisconnect - time.Since(since); left > 0 {
			next = max(next, left)
			continue
		}
		delete(s.orphans, id)
		s.wish(id, 0, wishNamed)
		e.release(s, xds.Key{Scope: name, ID: id})
	}
	switch {
	case len(s.orphans) > 0:
		e.sweepLater(name, s, next)
	case s.open == 0:
		e.forget(name, s)
	}
}

func (e *Engine) want(s *scope, i xds.Interest) {
	if i.Name != xds.Wildcard {
		k := i.Key
		s.wish(k.ID, wishNamed, 0)
		e.watch(k)
		return
	}
	if _, ok := s.wildcards[i.TypeURL]; ok {
		return
	}
	s.wildcards[i.TypeURL] = nil
	e.complete = append(e.complete, setRef{i.Scope, i.TypeURL})
	e.resources.set.Watch(setRef{i.Scope, i.TypeURL}, func(set []string) { e.resize(s, i.Scope, i.TypeURL, set) })
}

// resize follows the set of resources that a wildcard subscription gets.
func (e *Engine) resize(s *scope, scopeName xds.Scope, typeURL string, set []string) {
	old := s.wildcards[typeURL]
	s.wildcards[typeURL] = set
	for _, name := range set {
		if _, found := slices.BinarySearch(old, name); !found {
			e.watch(scopeName.Key(typeURL, name))
			if typeURL == xds.TypeScopedRoute {
				e.watch(scopeName.Key(xds.TypeRoute, name))
			}
		}
	}
	for _, name := range old {
		if _, found := slices.BinarySearch(set, name); !found {
			k := scopeName.Key(typeURL, name)
			e.updates[scopeName] = append(e.updates[scopeName], xds.Gone(k.ID))
			e.release(s, k)
			if typeURL == xds.TypeScopedRoute {
				e.release(s, scopeName.Key(xds.TypeRoute, name))
			}
		}
	}
}

// has tells whether a set has the resource. Route tables come with what leads to them, before they are asked for: what
// changes together is one revision, and the listener waits for the table of a port that is new.
func (s *scope) has(k xds.Key) bool {
	set := s.wildcards[k.TypeURL]
	if k.TypeURL == xds.TypeRoute {
		set = s.wildcards[xds.TypeScopedRoute]
	}
	_, found := slices.BinarySearch(set, k.Name)
	return found
}

func (e *Engine) watch(k xds.Key) {
	if e.resources.scoped.Watched(k) {
		return
	}
	e.resources.scoped.Keep(k)
}

// release ends the watch of a resource unless it is still wanted by name or as part of a set.
func (e *Engine) release(s *scope, k xds.Key) {
	if s.named(k.ID) || s.has(k) {
		return
	}
	e.resources.scoped.Unwatch(k)
	e.released = append(e.released, k)
}

// forget drops a scope whose proxies have been gone for the time of grace.
func (e *Engine) forget(name xds.Scope, s *scope) {
	for id := range s.wishes {
		if k := (xds.Key{Scope: name, ID: id}); s.named(id) {
			e.resources.scoped.Unwatch(k)
			e.unlearn(k)
		}
	}
	for typeURL, set := range s.wildcards {
		e.resources.set.Unwatch(setRef{name, typeURL})
		for _, n := range set {
			e.resources.scoped.Unwatch(name.Key(typeURL, n))
			if typeURL == xds.TypeScopedRoute {
				e.resources.scoped.Unwatch(name.Key(xds.TypeRoute, n))
			}
		}
	}
	delete(e.scopes, name)
	delete(e.isolations, name)
	e.show(name, nil)
	e.opts.Cache.Drop(name)
}
