// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// report is what was measured. Nothing of it is held against a limit: machines differ.
type report struct {
	Size    size
	Steps   []step
	Changes []change
	Uses    []use
}

// step is something that takes time, and what the operators used, and the proxies were sent, meanwhile.
type step struct {
	What      string
	Took, CPU time.Duration
	Sent      int64
}

// change is what one costs both operators, and when those whom it concerns have it.
type change struct {
	What               string
	CPU, Median, Worst time.Duration
}

// use is what an operator uses once it has nothing to do.
type use struct {
	When, Operator        string
	Live, Resident, Peak  int64
	Streams, Sent, Writes int64
}

func (r *report) write(t testing.TB) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", r.Size)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%-60s %10s  %10s of CPU  %10s sent\n", s.What, s.Took.Round(10*time.Millisecond),
			s.CPU.Round(10*time.Millisecond), bytesOf(s.Sent))
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "%-60s %10s  median %s, worst %s\n", c.What, c.CPU.Round(100*time.Microsecond),
			c.Median.Round(time.Millisecond), c.Worst.Round(time.Millisecond))
	}
	for _, u := range r.Uses {
		fmt.Fprintf(&b, "%-20s %-12s live %s, resident %s, peak %s, %d streams, %s sent, %d writes\n", u.When, u.Operator,
			bytesOf(u.Live), bytesOf(u.Resident), bytesOf(u.Peak), u.Streams, bytesOf(u.Sent), u.Writes)
	}
	t.Log("\n" + b.String())
	if *output != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*output, append(text, '\n'), 0o600))
	}
}

func bytesOf(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
