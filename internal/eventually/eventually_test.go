// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package eventually

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatComesIsWaitedFor(t *testing.T) {
	looks := 0
	True(t, "the third look", func() bool { looks++; return looks == 3 })
	require.Equal(t, 3, looks)
	Passes(t, "the fifth look", func(look require.TestingT) {
		looks++
		require.Equal(look, 5, looks)
	})
	require.Equal(t, 5, looks)
}

// TestWhatNeverComesFails, with the last thing that was missing.
func TestWhatNeverComesFails(t *testing.T) {
	r := &recorded{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Within(r, time.Millisecond, "pods of shop", func() error { return errors.New("no pod is ready") })
	}()
	<-done
	require.Contains(t, r.text, "pods of shop")
	require.Contains(t, r.text, "no pod is ready")
	require.EqualError(t, run(func(look require.TestingT) { look.FailNow() }), "it failed without a message")
	require.ErrorContains(t, run(func(look require.TestingT) { require.Equal(look, 1, 2) }), "Not equal")
}

// recorded is a test that fails.
type recorded struct {
	testing.TB
	failures
	text string
}

func (r *recorded) Helper() {}

func (r *recorded) Errorf(format string, args ...any) {
	r.failures.Errorf(format, args...)
	r.text = r.errs[0].Error()
}

func (r *recorded) FailNow() { r.failures.FailNow() }
