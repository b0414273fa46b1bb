// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func eq(a, b int) bool { return a == b }

type cells struct {
	g *Graph
	v map[int]int
}

func (s *cells) read(c *Ctx, k int) int { c.Read(k); return s.v[k] }
func (s *cells) set(k, v int)           { s.v[k] = v; s.g.Touch(k) }

func TestOnlyWhatReadTheChangeIsComputedAgain(t *testing.T) {
	s := &cells{New(), map[int]int{1: 10, 2: 20}}
	double := Define(s.g, "double", eq, func(c *Ctx, k int) int { return 2 * s.read(c, k) })
	sum := Define(s.g, "sum", eq, func(c *Ctx, k int) int { return double.Get(c, k) + double.Get(c, k+1) })
	var got []int
	sum.Watch(1, func(v int) { got = append(got, v) })
	s.g.Flush()
	require.Equal(t, []int{60}, got)

	n := s.g.computed
	s.set(1, 11)
	s.g.Flush()
	require.Equal(t, []int{60, 62}, got)
	require.Equal(t, n+2, s.g.computed, "double(1) and sum, not double(2)")

	n = s.g.computed
	s.set(99, 1)
	s.g.Flush()
	require.Equal(t, n, s.g.computed, "nobody reads 99")
}

func TestAnEqualResultStopsTheChange(t *testing.T) {
	s := &cells{New(), map[int]int{1: 3}}
	parity := Define(s.g, "parity", eq, func(c *Ctx, k int) int { return s.read(c, k) % 2 })
	top := Define(s.g, "top", eq, func(c *Ctx, k int) int { return parity.Get(c, k) })
	calls := 0
	top.Watch(1, func(int) { calls++ })
	s.g.Flush()
	n := s.g.computed
	s.set(1, 5)
	s.g.Flush()
	require.Equal(t, 1, calls)
	require.Equal(t, n+1, s.g.computed)
}

// What reads a steady value is not even marked until that has come out different.
func TestASteadyValueStopsTheChangeBeforeItsReaders(t *testing.T) {
	s := &cells{New(), map[int]int{1: 3, 2: 5}}
	sum := Define(s.g, "sum", eq, func(c *Ctx, _ int) int { return s.read(c, 1) + s.read(c, 2) })
	large := Define(s.g, "large", eq, func(c *Ctx, k int) int { return sum.Get(c, k) / 100 }).Steady()
	top := Define(s.g, "top", eq, func(c *Ctx, k int) int { return large.Get(c, 0) + k })
	var got []int
	top.Watch(7, func(v int) { got = append(got, v) })
	s.g.Flush()
	s.set(1, 4)
	require.Equal(t, clean, top.nodes[7].state)
	require.Equal(t, 0, large.Get(nil, 0))
	require.Equal(t, clean, top.nodes[7].state)
	s.set(1, 100)
	require.Equal(t, 1, large.Get(nil, 0))
	require.Equal(t, maybe, top.nodes[7].state)
	s.set(2, 100)
	require.Equal(t, 9, top.Get(nil, 7), "it is never read before it is right")
	s.g.Flush()
	require.Equal(t, []int{7, 9}, got)
	top.Unwatch(7)
	s.set(1, 0)
	s.g.Flush()
	require.Empty(t, s.g.inputs.read)
}

func TestUnwatchForgets(t *testing.T) {
	s := &cells{New(), map[int]int{1: 3}}
	a := Define(s.g, "a", eq, func(c *Ctx, k int) int { return s.read(c, k) })
	b := Define(s.g, "b", eq, func(c *Ctx, k int) int { return a.Get(c, k) })
	b.Watch(1, func(int) {})
	s.g.Flush()
	b.Unwatch(1)
	require.Empty(t, a.nodes)
	require.Empty(t, b.nodes)
	require.Empty(t, s.g.inputs.read)
	require.Equal(t, 3, b.Get(nil, 1))
	require.Empty(t, b.nodes, "an unrecorded read leaves nothing behind")
}

// TestKeptValuesAreToldToOne: with their keys, first and whenever they change, until they aren't kept any more.
func TestKeptValuesAreToldToOne(t *testing.T) {
	s := &cells{New(), map[int]int{1: 3, 2: 4}}
	double := Define(s.g, "double", eq, func(c *Ctx, k int) int { return 2 * s.read(c, k) })
	var told [][2]int
	double.OnKept(func(k, v int) { told = append(told, [2]int{k, v}) })
	double.Keep(1)
	double.Keep(2)
	s.g.Flush()
	require.ElementsMatch(t, [][2]int{{1, 6}, {2, 8}}, told)
	s.set(2, 5)
	s.g.Flush()
	require.Equal(t, [2]int{2, 10}, told[2])
	double.Unwatch(2)
	require.False(t, double.Watched(2))
	s.set(2, 6)
	s.g.Flush()
	require.Len(t, told, 3)
	require.Len(t, double.nodes, 1)
}

// A watched value that another watched value reads first must still be told to its own watcher.
func TestAWatchedValueReadByAnotherIsTold(t *testing.T) {
	s := &cells{New(), map[int]int{1: 3}}
	a := Define(s.g, "a", eq, func(c *Ctx, k int) int { return s.read(c, k) })
	b := Define(s.g, "b", eq, func(c *Ctx, k int) int { return a.Get(c, k) + s.read(c, k) })
	var gotA, gotB []int
	b.Watch(1, func(v int) { gotB = append(gotB, v) })
	a.Watch(1, func(v int) { gotA = append(gotA, v) })
	s.g.Flush()
	s.set(1, 4)
	s.g.Flush()
	require.Equal(t, []int{3, 4}, gotA)
	require.Equal(t, []int{6, 8}, gotB)
}

// TestAgreesWithFromScratch changes inputs at random and holds every watched value against one computed from scratch.
// What is read depends on the values themselves, so dependencies come and go.
func TestAgreesWithFromScratch(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &cells{New(), map[int]int{}}
		build := func(g *Graph) *Func[int, int] {
			low := Define(g, "low", eq, func(c *Ctx, k int) int { return s.read(c, k) % 7 })
			rare := Define(g, "rare", eq, func(c *Ctx, k int) int { return low.Get(c, k) / 5 }).Steady()
			rarer := Define(g, "rarer", eq, func(c *Ctx, k int) int { return low.Get(c, k)/6 + rare.Get(c, (k+1)%10) }).Steady()
			mid := Define(g, "mid", eq, func(c *Ctx, k int) int {
				if low.Get(c, k)%2 == 0 {
					return low.Get(c, (k+1)%10)
				}
				return low.Get(c, (k+low.Get(c, (k+2)%10))%10) + 7*rarer.Get(c, k)
			})
			early := Define(g, "early", eq, func(c *Ctx, k int) int { return mid.Get(c, k) % 3 }).Steady()
			return Define(g, "high", eq, func(c *Ctx, k int) int {
				return mid.Get(c, k)*100 + mid.Get(c, (k+3)%10)*10 + early.Get(c, (k+5)%10) + rare.Get(c, k)
			})
		}
		f := build(s.g)
		seen := map[int]int{}
		for step := range 300 {
			switch r.IntN(10) {
			case 0:
				k := r.IntN(10)
				f.Watch(k, func(v int) { seen[k] = v })
			case 1:
				k := r.IntN(10)
				f.Unwatch(k)
				delete(seen, k)
			default:
				s.set(r.IntN(10), r.IntN(50))
			}
			if r.IntN(3) > 0 {
				continue
			}
			s.g.Flush()
			oracle := build(New())
			for k, v := range seen {
				require.Equal(t, oracle.Get(nil, k), v, "seed %d step %d key %d", seed, step, k)
			}
		}
	}
}

// TestNothingIsComputedOfHalfAChange: what a value reads is all before a change or all after it, by whatever ways it
// depends on that, and however it comes to read it. Steady values are on some of the ways, others in others.
func TestNothingIsComputedOfHalfAChange(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := &cells{New(), map[int]int{}}
		// All levels say the same, which is an input, and read it by more and more ways. Whether they go any but the
		// shortest depends on the input.
		const keys, levels = 5, 8
		at := []*Func[int, int]{Define(s.g, "0", eq, func(c *Ctx, k int) int { return s.read(c, k) })}
		for level := 1; level < levels; level++ {
			below := at[level-1]
			behind := Define(s.g, "behind", eq, func(c *Ctx, k int) int { return below.Get(c, k) })
			at = append(at, Define(s.g, "at", eq, func(c *Ctx, k int) int {
				v := at[0].Get(c, k)
				if v%3 > 0 {
					require.Equal(t, v, behind.Get(c, k), "seed %d", seed)
				}
				return v
			}))
			if r.IntN(2) == 0 {
				at[level].Steady()
			}
			for k := range keys {
				behind.Watch(k, func(int) {}) // so that it is there before it is read
			}
		}
		seen := map[[2]int]int{}
		for level := range levels {
			for k := range keys {
				at[level].Watch(k, func(v int) { seen[[2]int{level, k}] = v })
			}
		}
		for range 100 {
			for range 1 + r.IntN(3) {
				s.set(r.IntN(keys), r.IntN(20))
			}
			s.g.Flush()
			for place, v := range seen {
				require.Equal(t, s.v[place[1]], v, "seed %d", seed)
			}
		}
	}
}

// TestALookIsAtWhatChanged: whether a value of many others is still right is asked of those that changed.
func TestALookIsAtWhatChanged(t *testing.T) {
	const many = 1000
	s := &cells{New(), map[int]int{}}
	parity := Define(s.g, "parity", eq, func(c *Ctx, k int) int { return s.read(c, k) % 2 })
	sum := Define(s.g, "sum", eq, func(c *Ctx, _ int) (out int) {
		for k := range many {
			out += parity.Get(c, k)
		}
		return out
	})
	got := -1
	sum.Watch(0, func(v int) { got = v })
	s.g.Flush()
	s.set(7, 2)
	require.Equal(t, []*node{&parity.nodes[7].node}, sum.nodes[0].suspects.of)
	computed := s.g.computed
	s.g.Flush()
	require.Equal(t, computed+1, s.g.computed)
	require.Equal(t, 0, got)
	s.set(7, 3)
	s.set(8, 3)
	s.g.Flush()
	require.Equal(t, 2, got)
	require.Nil(t, sum.nodes[0].suspects)
}

// TestWhatIsAskedForMayJustHaveBeenForgotten: a look from outside at a value that only a steady one read, which reads
// something else by now.
func TestWhatIsAskedForMayJustHaveBeenForgotten(t *testing.T) {
	s := &cells{New(), map[int]int{0: 1, 1: 5, 2: 6}}
	leaf := Define(s.g, "leaf", eq, func(c *Ctx, k int) int { return s.read(c, k) })
	chosen := Define(s.g, "chosen", eq, func(c *Ctx, _ int) int { return leaf.Get(c, s.read(c, 0)) }).Steady()
	top := Define(s.g, "top", eq, func(c *Ctx, _ int) int { return chosen.Get(c, 0) })
	top.Watch(0, func(int) {})
	s.g.Flush()
	s.set(1, 7)
	s.set(0, 2)
	require.Equal(t, 7, leaf.Get(nil, 1))
	require.Len(t, leaf.nodes, 1, "and it is forgotten again")
	require.Equal(t, 6, top.Get(nil, 0))
}
