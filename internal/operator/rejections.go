// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"sync"

	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// rejections follows which resources of each scope some proxy rejects, so that a Gateway can say so whatever the resource
// is, at the cost of what changed.
type rejections struct {
	acks status.Acknowledgements

	mu sync.Mutex
	of map[string]map[rejectable]string // by scope: what the proxy said
}

type rejectable struct{ typeURL, name string }

func newRejections(acks status.Acknowledgements) *rejections {
	return &rejections{acks: acks, of: map[string]map[rejectable]string{}}
}

// note looks at a resource again and tells whether that changed anything. The book is read under the lock, so that the
// later of two calls has the last word.
func (r *rejections) note(scope, typeURL, name string) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, text := rejectable{typeURL, name}, r.acks.State(scope, typeURL, name).Rejection()
	if r.of[scope][k] == text {
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
