// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package eventually waits in tests for what others do: it looks again and again, and says at the end what was missing.
package eventually

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// Patience is how long something may take that takes no time where a machine has nothing else to do.
	Patience = 60 * time.Second
	// first and longest are the pauses between two looks. They grow by a quarter, so that what comes is seen soon
	// after, in proportion to the time that it took.
	first, longest = time.Millisecond, 100 * time.Millisecond
)

// True waits until something is so. what says, for people, what is waited for.
func True(t testing.TB, what string, is func() bool) {
	t.Helper()
	NoError(t, what, func() error {
		if !is() {
			return errors.New("it is not so")
		}
		return nil
	})
}

// NoError waits until a check passes, and shows its last error where it never does.
func NoError(t testing.TB, what string, check func() error) {
	t.Helper()
	Within(t, Patience, what, check)
}

// Within is NoError with a time of its own.
func Within(t testing.TB, patience time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := first; ; pause = min(pause+pause/4, longest) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "waited "+patience.String()+" for: "+what, err.Error())
		}
		time.Sleep(pause)
	}
}

// Passes waits until all that a look asserts holds. require ends the look, not the test.
func Passes(t testing.TB, what string, look func(require.TestingT)) {
	t.Helper()
	PassesWithin(t, Patience, what, look)
}

// PassesWithin is Passes with a time of its own.
func PassesWithin(t testing.TB, patience time.Duration, what string, look func(require.TestingT)) {
	t.Helper()
	Within(t, patience, what, func() error { return run(look) })
}

// run has a look in a goroutine of its own, which require can end.
func run(look func(require.TestingT)) error {
	seen := &failures{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		look(seen)
	}()
	<-done
	return errors.Join(seen.errs...)
}

// failures of one look.
type failures struct{ errs []error }

// Errorf implements require.TestingT.
func (f *failures) Errorf(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

// FailNow implements require.TestingT.
func (f *failures) FailNow() {
	if len(f.errs) == 0 {
		f.errs = append(f.errs, errors.New("it failed without a message"))
	}
	runtime.Goexit()
}
