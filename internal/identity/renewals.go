// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// renewalGrace is how long an identity must have been asked for in vain until that is told, from the first failure to
	// the last: most are over sooner, and a single one may have been followed by a success at another replica. A
	// certificate is renewed with a third of its life to go.
	renewalGrace = time.Minute
	// renewalMemory is how long a failure counts without another one. Agents try again within 45 s, though perhaps at
	// another replica.
	renewalMemory = 5 * time.Minute
	// maxFailing and maxFailingOfOne bound the failures that are remembered, in all and of one holder.
	maxFailing      = 4096
	maxFailingOfOne = 256
)

// Failure is a certificate that a holder asked for in vain.
type Failure struct {
	// Holder says who asked.
	Holder   string
	Identity string
	Held     Held
	Err      error
}

// Renewals remembers which identities can't be renewed, as far as this replica was asked. It is safe for concurrent
// use.
type Renewals struct {
	now func() time.Time
	// changed is told when the first failure comes and when the last one goes.
	changed func()

	mu      sync.Mutex
	failing map[renewal]*failing
}

type renewal struct{ holder, identity string }

type failing struct {
	held Held
	last time.Time
	err  error
}

// NewRenewals makes an empty memory. changed is told when the first failure comes and when the last one goes.
func NewRenewals(now func() time.Time, changed func()) *Renewals {
	return &Renewals{now: now, changed: changed, failing: map[renewal]*failing{}}
}

// Failed takes note of a failure. What the holder says of itself is kept within what can be.
func (r *Renewals) Failed(f Failure) {
	now, key := r.now(), renewal{f.Holder, f.Identity}
	if since := f.Held.FailingSince; since.After(now) || since.Before(now.Add(-maxLeafLifetime)) { // or zero
		f.Held.FailingSince = now
	}
	if f.Held.NotAfter.After(now.Add(maxLeafLifetime + time.Hour)) {
		f.Held.NotAfter = time.Time{}
	}
	r.mu.Lock()
	r.expire(now)
	before := r.failing[key]
	if before == nil && (len(r.failing) >= maxFailing || r.of(f.Holder) >= maxFailingOfOne) {
		r.mu.Unlock()
		return
	}
	if before != nil && before.held.FailingSince.Before(f.Held.FailingSince) {
		f.Held.FailingSince = before.held.FailingSince
	}
	first := len(r.failing) == 0
	r.failing[key] = &failing{held: f.Held, last: now, err: f.Err}
	r.mu.Unlock()
	if first {
		r.changed()
	}
}

// Renewed takes note of a success.
func (r *Renewals) Renewed(holder, id string) {
	r.mu.Lock()
	_, had := r.failing[renewal{holder, id}]
	delete(r.failing, renewal{holder, id})
	last := had && len(r.failing) == 0
	r.mu.Unlock()
	if last {
		r.changed()
	}
}

// Reported takes note of all that fails for a holder, and forgets what doesn't any more.
func (r *Renewals) Reported(holder string, all []Failure) {
	now := map[string]bool{}
	for _, f := range all {
		now[f.Identity] = true
	}
	r.mu.Lock()
	var over []string
	for key := range r.failing {
		if key.holder == holder && !now[key.identity] {
			over = append(over, key.identity)
		}
	}
	r.mu.Unlock()
	for _, id := range over {
		r.Renewed(holder, id)
	}
	for _, f := range all {
		f.Holder = holder
		r.Failed(f)
	}
}

// of counts the failures of a holder; the lock is held.
func (r *Renewals) of(holder string) int {
	n := 0
	for key := range r.failing {
		if key.holder == holder {
			n++
		}
	}
	return n
}

// expire forgets failures that were not repeated; the lock is held.
func (r *Renewals) expire(now time.Time) {
	for key, f := range r.failing {
		if now.Sub(f.last) > renewalMemory {
			delete(r.failing, key)
		}
	}
}

// RenewalSummary is how renewals stand.
type RenewalSummary struct {
	// Failing counts identities, each once for each holder, that are asked for in vain for longer than a moment; Without
	// those of them that have no valid certificate.
	Failing, Without int
	// Any: there are failures, told or not.
	Any bool
	// Since is when the first began to fail; First when the first certificate ends that is still valid, and FirstOf whose
	// it is.
	Since, First time.Time
	FirstOf      string
	// Holders are those who asked, sorted.
	Holders []string
	// Err is the newest failure.
	Err error
}

// Summary sums up.
func (r *Renewals) Summary() RenewalSummary {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.expire(now)
	s := RenewalSummary{Any: len(r.failing) > 0}
	var newest time.Time
	for _, key := range r.sorted() {
		f := r.failing[key]
		if f.last.Sub(f.held.FailingSince) < renewalGrace {
			continue
		}
		s.Failing++
		if s.Since.IsZero() || f.held.FailingSince.Before(s.Since) {
			s.Since = f.held.FailingSince
		}
		if end := f.held.NotAfter; !now.Before(end) {
			s.Without++
		} else if s.First.IsZero() || end.Before(s.First) {
			s.First, s.FirstOf = end, key.identity
		}
		if !slices.Contains(s.Holders, key.holder) {
			s.Holders = append(s.Holders, key.holder)
		}
		if f.last.After(newest) {
			newest, s.Err = f.last, f.err
		}
	}
	return s
}

// sorted makes summaries of the same failures the same; the lock is held.
func (r *Renewals) sorted() []renewal {
	keys := make([]renewal, 0, len(r.failing))
	for key := range r.failing {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b renewal) int {
		return cmp.Or(strings.Compare(a.holder, b.holder), strings.Compare(a.identity, b.identity))
	})
	return keys
}
