// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Time grows with the text, whatever it is: eight times as much may take 32 times as long, not 64 times. It is the time
// of the processor that counts, for others use the machine as well.
func TestLinear(t *testing.T) {
	const (
		size         = 8 << 10
		ofThisThread = 1 // RUSAGE_THREAD
	)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var u syscall.Rusage
		require.NoError(t, syscall.Getrusage(ofThisThread, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	took := func(text []byte) time.Duration {
		best := time.Hour
		for range 3 {
			start := used()
			_, err := Text(t.Context(), text)
			require.NoError(t, err)
			best = min(best, used()-start)
		}
		return best
	}
	large := hard(8 * size)
	for name, text := range hard(size) {
		require.Less(t, took(large[name]), 32*(took(text)+5*time.Millisecond), name)
	}
}
