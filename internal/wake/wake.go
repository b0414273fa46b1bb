// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wake tells one goroutine that there is something to do, however often that is said before it looks, or that a
// time is over.
package wake

import (
	"context"
	"time"
)

// After returns when a time is over, or the context has ended: then it is false.
func After(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Signal is received from by the goroutine that does the work. It takes what is to be done before it receives again, so
// nothing is missed.
type Signal chan struct{}

// New returns a signal that is not set.
func New() Signal { return make(Signal, 1) }

// Set wakes the goroutine, now or when it looks next. It never blocks.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
