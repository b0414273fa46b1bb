// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/catalogue"
)

const (
	// maxKept bounds the counts of all proxies together, at some 300 bytes each. Replicas can tell each other as many.
	maxKept = 1 << 17
	// perFree is Room's, of all proxies.
	perFree = 32
	// forget is after what time a count that has not grown is forgotten.
	forget = 2 * Idle
)

// Growth is what a count has grown by since it was told last.
type Growth struct {
	Source
	Count
	Added uint64
	// First: nothing was known of the count before. It may have begun long ago: see Since.
	First bool
}

// Book has the counts of all proxies as they told them last, whichever replica they told.
type Book struct {
	mu sync.Mutex
	of map[Source]map[Series]Count
	// owners share what is kept: each node, and the waypoints of each namespace together, as many as they may be.
	owners *Room[string]
	// within are those of each proxy, shared by the namespaces of destinations.
	within map[Source]*Room[string]
}

// NewBook is empty.
func NewBook() *Book {
	return &Book{
		of: map[Source]map[Series]Count{}, owners: NewRoom[string](maxKept, perFree), within: map[Source]*Room[string]{},
	}
}

// owner of what a proxy tells.
func (s Source) owner() string {
	if gateway, ok := catalogue.WaypointOf(s.Scope); ok {
		return "waypoints/" + gateway.Namespace
	}
	return string(s.Scope)
}

// keep a new count, if there is room for it.
func (b *Book) keep(from Source, s Series) bool {
	within := b.within[from]
	if within == nil {
		within = NewRoom[string](MaxSeries, PerFreeOfProxy)
	}
	if !within.Has(s.Namespace()) || !b.owners.Has(from.owner()) {
		return false
	}
	b.within[from] = within
	within.Take(s.Namespace())
	b.owners.Take(from.owner())
	return true
}

// Take takes in what a proxy tells, and says what has grown.
func (b *Book) Take(from Source, told []Count) (grown []Growth) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range told {
		was, known := b.of[from][c.Series]
		switch {
		case known && c.Since.Before(was.Since): // a replica tells of it that the agent has told nothing for long
			continue
		case !known && !b.keep(from, c.Series):
			continue
		}
		g := Growth{Source: from, Count: c, Added: c.Value, First: !known || !was.Since.Equal(c.Since)}
		if !g.First {
			if c.Value <= was.Value {
				continue // it came twice
			}
			g.Added = c.Value - was.Value
		}
		if b.of[from] == nil {
			b.of[from] = map[Series]Count{}
		}
		b.of[from][c.Series] = c
		grown = append(grown, g)
	}
	return grown
}

// Sweep forgets what has not grown for long, and says of whom and what.
func (b *Book) Sweep(now time.Time, gone func(Source, Series)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for from, of := range b.of {
		for s, c := range of {
			if now.Sub(c.Last) > forget {
				delete(of, s)
				b.owners.Give(from.owner())
				b.within[from].Give(s.Namespace())
				gone(from, s)
			}
		}
		if len(of) == 0 {
			delete(b.of, from)
			delete(b.within, from)
		}
	}
}
