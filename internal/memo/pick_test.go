// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPickedAreLookedAtWhereTheyDiffer: of a thousand values that are picked from a steady one, a change of that has
// those looked at that it is about. Whether it is steady or not, all that is told is what it would be if made anew.
func TestPickedAreLookedAtWhereTheyDiffer(t *testing.T) {
	const parts = 1000
	for _, steady := range []bool{true, false} {
		t.Run(fmt.Sprintf("steady=%v", steady), func(t *testing.T) {
			g := New()
			now := make([]int, parts)
			all := Define(g, "all", slices.Equal[[]int], func(c *Ctx, _ string) []int {
				c.Read("input")
				return slices.Clone(now)
			})
			if steady {
				all.Steady()
			}
			picked := 0
			one := Pick(all, "one", func(a, b int) bool { return a == b }, func(before, now []int) (out []int) {
				for n := range now {
					if before[n] != now[n] {
						out = append(out, n)
					}
				}
				return out
			}, func(v []int, n int) int { picked++; return v[n] })
			double := Define(g, "double", func(a, b int) bool { return a == b }, func(c *Ctx, n int) int {
				return 2 * one.Get(c, Picked[string, int]{"x", n})
			})
			told := make([]int, parts)
			for n := range parts {
				double.Watch(n, func(v int) { told[n] = v })
			}
			g.Flush()
			r := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				for range 3 {
					now[r.IntN(parts)]++
				}
				picked = 0
				g.Touch("input")
				gone := r.IntN(parts)
				double.Unwatch(gone)
				g.Flush()
				if steady {
					require.LessOrEqual(t, picked, 3)
				}
				double.Watch(gone, func(v int) { told[gone] = v })
				g.Flush()
				for n := range parts {
					require.Equal(t, 2*now[n], told[n])
				}
			}
		})
	}
}
