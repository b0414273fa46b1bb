// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/status/serving"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// rejections follows which resources of each scope some proxy rejects, so that a Gateway can say so whatever the
// resource is, at the cost of what changed.
type rejections struct {
	acks serving.Acknowledgements

	// again is told of a table that has been rejected for so long that the search for a culprit must be over.
	again func(...xds.Key)

	mu sync.Mutex
	of map[xds.Scope]map[xds.ID]string // what the proxy said
	// tables are rejected since then; see serving.Search.
	tables map[xds.Key]time.Time
}

func newRejections(acks serving.Acknowledgements, again func(...xds.Key)) *rejections {
	return &rejections{acks: acks, again: again, of: map[xds.Scope]map[xds.ID]string{}, tables: map[xds.Key]time.Time{}}
}

// note looks at a resource again and tells whether that changed anything. The book is read under the lock, so that the
// later of two calls has the last word.
func (r *rejections) note(k xds.Key) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.acks.State(k).Rejection()
	if text == "" {
		delete(r.tables, k)
	}
	if text != "" && r.awaitSearch(k) || r.of[k.Scope][k.ID] == text {
		return false
	}
	if text == "" {
		if delete(r.of[k.Scope], k.ID); len(r.of[k.Scope]) == 0 {
			delete(r.of, k.Scope)
		}
		return true
	}
	if r.of[k.Scope] == nil {
		r.of[k.Scope] = map[xds.ID]string{}
	}
	r.of[k.Scope][k.ID] = text
	return true
}

// awaitSearch has a rejected table wait while the engine searches for its culprit, and is looked at again when that
// must be over. It tells whether the resource waits.
func (r *rejections) awaitSearch(k xds.Key) bool {
	if k.TypeURL != xds.TypeRoute {
		return false
	}
	since, known := r.tables[k]
	if !known {
		r.tables[k] = time.Now()
		time.AfterFunc(serving.Search, func() { r.again(k) })
		return true
	}
	return time.Since(since) < serving.Search
}

// first describes one rejection of a scope, the same as long as it lasts; empty if there is none.
func (r *rejections) first(scope xds.Scope) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first xds.ID
	for id := range r.of[scope] {
		if first == (xds.ID{}) || cmp.Or(cmp.Compare(id.TypeURL, first.TypeURL), cmp.Compare(id.Name, first.Name)) < 0 {
			first = id
		}
	}
	if first == (xds.ID{}) {
		return ""
	}
	return first.String() + ": " + r.of[scope][first]
}
