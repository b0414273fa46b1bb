// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// HoldTime is how long what serves stays Programmed, with the count that it has, while proxies are away or new ones
// come: a restart of the operator, a rollout and a new stream must not cost a write, or two, of every status.
const HoldTime = 15 * time.Second

// Timer tells since when something is so.
type Timer struct{ since time.Time }

// Track starts the time with which something is so, and resets it once it isn't. It returns how much is left of the
// time that it may be so; zero where it isn't so, and where it has been so for
// as long.
func (t *Timer) Track(so bool, most time.Duration) time.Duration {
	if !so {
		t.since = time.Time{}
		return 0
	}
	if t.since.IsZero() {
		t.since = time.Now()
	}
	return max(most-time.Since(t.since), 0)
}

// Hold keeps conditions of one object True for HoldTime, though what makes them True is missing.
type Hold struct{ timer Timer }

// Held is a condition that is to be said.
type Held struct {
	Now *metav1.Condition
	// Written are the conditions as the object has them.
	Written []metav1.Condition
	// May tells, given what was said, whether Now lacks only what may come any moment.
	May func(was *metav1.Condition) bool
}

// Keep makes conditions what they were, where they were True of the same generation and may be held, and tells for how
// long. Zero: nothing is held.
func (h *Hold) Keep(conditions ...Held) time.Duration {
	held := map[*metav1.Condition]*metav1.Condition{}
	for _, c := range conditions {
		was := meta.FindStatusCondition(c.Written, c.Now.Type)
		served := was != nil && was.Status == metav1.ConditionTrue && was.ObservedGeneration == c.Now.ObservedGeneration
		if served && c.May(was) {
			held[c.Now] = was
		}
	}
	left := h.timer.Track(len(held) > 0, HoldTime)
	if left > 0 {
		for now, was := range held {
			*now = *was
		}
	}
	return left
}

// Holds are those of many objects of one kind.
type Holds struct {
	mu sync.Mutex
	of map[types.NamespacedName]*Hold
}

// Ensure returns the hold of an object, made if need be. It is for one goroutine at a time.
func (h *Holds) Ensure(key types.NamespacedName) *Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[types.NamespacedName]*Hold{}
	}
	if h.of[key] == nil {
		h.of[key] = &Hold{}
	}
	return h.of[key]
}

// Forget is for an object that is gone.
func (h *Holds) Forget(key types.NamespacedName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, key)
}
