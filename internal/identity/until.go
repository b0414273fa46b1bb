// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"time"
)

// Until is a time to come as people want it: "2026-03-01T17:15:00Z, in 5 h 10 min". What is far away is told less
// exactly, so that a condition doesn't change each minute.
func Until(t, now time.Time) string {
	text := t.UTC().Format(time.RFC3339)
	left := t.Sub(now)
	if left <= 0 {
		return text + ", which is over"
	}
	const day = 24 * time.Hour
	switch {
	case left >= 2*day:
		return fmt.Sprintf("%s, in %d d %d h", text, left/day, left%day/time.Hour)
	case left >= time.Hour:
		return fmt.Sprintf("%s, in %d h %d min", text, left/time.Hour, left%time.Hour/(10*time.Minute)*10)
	}
	return fmt.Sprintf("%s, in %d min", text, left/time.Minute)
}
