// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"time"
)

// waitStep is the time between two looks: a look costs a list of every kind, and what people wait for takes seconds.
const waitStep = 2 * time.Second

// waiter looks until all is well.
type waiter struct {
	connect func(context.Context) (*cluster, error)
	look    func(context.Context, *cluster) state
	// out is told what is waited for, each time that changes.
	out io.Writer

	said string
}

// run returns what it found last when the context ends, or an error that won't pass by waiting. Time that runs out in
// the middle of a look spoils that look alone: what was found before counts.
func (w *waiter) run(ctx context.Context) (found state, err error) {
	var c *cluster
	for {
		if c == nil {
			if c, err = w.connect(ctx); err != nil {
				var passes passingError
				if ctx.Err() != nil || !errors.As(err, &passes) {
					return nil, err
				}
				w.say(err.Error())
			}
		}
		if c != nil {
			if now := w.once(ctx, c); found == nil || ctx.Err() == nil {
				found = now
			}
			if found.well() {
				return found, nil
			}
			w.say(found.waitsFor())
		}
		t := time.NewTimer(waitStep)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if found == nil {
				return nil, err
			}
			return found, nil
		}
	}
}

// once looks, for no longer than a look takes without --wait.
func (w *waiter) once(ctx context.Context, c *cluster) state {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	return w.look(ctx, c)
}

func (w *waiter) say(what string) {
	if what != w.said {
		w.said = what
		_ = sayLine(w.out, "waiting: "+what)
	}
}
