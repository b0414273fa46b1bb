// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package quarantine

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// run searches to the end and returns the culprits and the number of trials.
func run(
	t *testing.T, s *Search, items func() []Item, rejects func(keys map[string]bool) bool,
) (culprits map[string]bool, trials int) {
	culprits = map[string]bool{}
	left := func() (out []Item) {
		for _, it := range items() {
			if !culprits[it.Key] {
				out = append(out, it)
			}
		}
		return out
	}
	for {
		keys, ok := s.Advance(left())
		if !ok {
			return culprits, trials
		}
		trials++
		require.Less(t, trials, 10_000, "it must end")
		for _, it := range s.Verdict(left(), !rejects(keys)) {
			culprits[it.Key] = true
		}
	}
}

func numbered(n int) (items []Item) {
	for i := range n {
		items = append(items, Item{Key: fmt.Sprint(i), Group: fmt.Sprint("route ", i/2)})
	}
	return items
}

// anyOf rejects what has one of some items.
func anyOf(bad map[string]bool) func(map[string]bool) bool {
	return func(keys map[string]bool) bool {
		for k := range keys {
			if bad[k] {
				return true
			}
		}
		return false
	}
}

func TestExactlyTheCulpritsAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		n := 1 + r.IntN(200)
		bad, trusted := map[string]bool{}, map[string]bool{}
		for range 1 + r.IntN(4) {
			bad[fmt.Sprint(r.IntN(n))] = true
		}
		for i := range n {
			if r.IntN(3) > 0 {
				trusted[fmt.Sprint(i)] = true // also some of the bad ones: another proxy accepted them
			}
		}
		culprits, trials := run(t, New(trusted), func() []Item { return numbered(n) }, anyOf(bad))
		require.Equal(t, bad, culprits)
		require.LessOrEqual(t, trials, 4+len(bad)*2*(1+bits.Len(uint(n))))
	}
}

// TestOneSuspectCostsTwoTrials: the usual case, one edit.
func TestOneSuspectCostsTwoTrials(t *testing.T) {
	trusted := map[string]bool{}
	for _, it := range numbered(99) {
		trusted[it.Key] = true
	}
	culprits, trials := run(t, New(trusted), func() []Item { return numbered(100) }, anyOf(map[string]bool{"99": true}))
	require.Equal(t, map[string]bool{"99": true}, culprits)
	require.Equal(t, 2, trials)
}

// TestTooMuchTogether: where only all together are too much, something is left out, and the rest is accepted.
func TestTooMuchTogether(t *testing.T) {
	tooMany := func(keys map[string]bool) bool { return len(keys) > 20 }
	culprits, _ := run(t, New(nil), func() []Item { return numbered(24) }, tooMany)
	require.Len(t, culprits, 4)
}

func TestNobodyIsBlamedForWhatIsRejectedAnyway(t *testing.T) {
	culprits, trials := run(t, New(map[string]bool{"1": true}), func() []Item { return numbered(50) },
		func(map[string]bool) bool { return true })
	require.Empty(t, culprits)
	require.Equal(t, 2, trials)
}

// TestOneGroupCostsLittle: somebody who makes a great many bad items costs no more than somebody who makes a few.
func TestOneGroupCostsLittle(t *testing.T) {
	items, bad := numbered(20), map[string]bool{}
	for i := range 1000 {
		it := Item{Key: fmt.Sprint("bad ", i), Group: "hostile"}
		items, bad[it.Key] = append(items, it), true
	}
	culprits, trials := run(t, New(nil), func() []Item { return items }, anyOf(bad))
	require.Equal(t, bad, culprits)
	require.Less(t, trials, 80)
}

// TestChangesWithoutEnd: an item that is replaced by another bad one at each step keeps nothing from being found.
func TestChangesWithoutEnd(t *testing.T) {
	bad := map[string]bool{"7": true}
	step := 0
	items := func() []Item {
		step++
		if step > 400 {
			return numbered(64)
		}
		key := fmt.Sprint("edit ", step/2)
		bad[key] = true
		return append(numbered(64), Item{Key: key, Group: "hostile"})
	}
	culprits, _ := run(t, New(nil), items, anyOf(bad))
	require.True(t, culprits["7"])
	for k := range culprits {
		require.True(t, bad[k], k)
	}
}
