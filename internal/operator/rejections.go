// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// rejections follows which resources of each scope some proxy rejects, so that a Gateway can say so whatever the resource
// is, at the cost of what changed.
type rejections struct {
	acks status.Acknowledgements

	// again is to look at a table again that was just rejected.
	again func(scope, typeURL, name string)

	mu sync.Mutex
	of map[string]map[rejectable]string // by scope: what the proxy said
	// tables are rejected since then; see status.Search.
	tables map[table]time.Time
}

type table struct{ scope, name string }

type rejectable struct{ typeURL, name string }

func newRejections(acks status.Acknowledgements) *rejections {
	return &rejections{acks: acks, of: map[string]map[rejectable]string{}, tables: map[table]time.Time{}}
}

// note looks at a resource again and tells whether that changed anything. The book is read under the lock, so that the
// later of two calls has the last word.
func (r *rejections) note(scope, typeURL, name string) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, text := rejectable{typeURL, name}, r.acks.State(scope, typeURL, name).Rejection()
	if text == "" {
		delete(r.tables, table{scope, name})
	}
	if text != "" && r.sought(scope, typeURL, name) || r.of[scope][k] == text {
		return false
	}
	if text == "" {
		if delete(r.of[scope], k); len(r.of[scope]) == 0 {
			delete(r.of, scope)
		}
		return true
	}
	if r.of[scope] == nil {
		r.of[scope] = map[rejectable]string{}
	}
	r.of[scope][k] = text
	return true
}

// sought tells whether a rejected resource is a table whose culprit is still being sought, and looks again when that must be
// over.
func (r *rejections) sought(scope, typeURL, name string) bool {
	if typeURL != xds.TypeRoute {
		return false
	}
	k := table{scope, name}
	since, known := r.tables[k]
	if !known {
		r.tables[k] = time.Now()
		time.AfterFunc(status.Search, func() { r.again(scope, typeURL, name) })
		return true
	}
	return time.Since(since) < status.Search
}

// first describes one rejection of a scope, the same as long as it lasts; empty if there is none.
func (r *rejections) first(scope string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first rejectable
	for k := range r.of[scope] {
		if first == (rejectable{}) || cmp.Or(cmp.Compare(k.typeURL, first.typeURL), cmp.Compare(k.name, first.name)) < 0 {
			first = k
		}
	}
	if first == (rejectable{}) {
		return ""
	}
	return xds.Describe(first.typeURL, first.name) + ": " + r.of[scope][first]
}
