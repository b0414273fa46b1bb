// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/memo"
)

// TestListedInParts adds and removes objects at random, many and few at a time, and holds what an index lists, as a
// whole and in parts, against what there is. The parts grow and shrink in number.
func TestListedInParts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 5))
	g := memo.New()
	services := NewStore(g).Services
	same := slices.Equal[[]Key]
	whole := memo.Define(g, "whole", same, func(c *memo.Ctx, ns string) []Key { return services.By(c, ByNamespace, ns) })
	part := memo.Define(g, "part", same, func(c *memo.Ctx, p Part) []Key {
		return slices.SortedFunc(slices.Values(services.Part(c, ByNamespace, "shop", p)), compareKeys)
	})
	all := memo.Define(g, "all", same, func(c *memo.Ctx, _ string) (out []Key) {
		of := services.Parts(c, ByNamespace, "shop")
		for n := range of {
			out = append(out, part.Get(c, Part{n, of})...)
		}
		return slices.SortedFunc(slices.Values(out), compareKeys)
	})
	var got, inParts []Key
	whole.Watch("shop", func(keys []Key) { got = keys })
	all.Watch("", func(keys []Key) { inParts = keys })
	service := func(n int) *corev1.Service {
		s := &corev1.Service{}
		s.Namespace, s.Name = "shop", fmt.Sprint("s", n)
		return s
	}
	most := 0
	for round := range 60 {
		changes := []int{1, 3, 400, 2000}[r.IntN(4)]
		for range changes {
			if n := r.IntN(3000); r.IntN(20) < round/3 {
				services.Delete(Key{Namespace: "shop", Name: fmt.Sprint("s", n)})
			} else {
				services.Set(service(n))
			}
		}
		before := g.Reads
		g.Flush()
		want := make([]Key, 0, len(services.objects))
		for k := range services.objects {
			want = append(want, k)
		}
		slices.SortFunc(want, compareKeys)
		require.True(t, slices.Equal(want, got), "round %d", round)
		require.True(t, slices.Equal(want, inParts), "round %d", round)
		most = max(most, services.Parts(nil, ByNamespace, "shop"))
		if changes == 1 && g.Reads > before {
			require.Less(t, g.Reads-before, uint64(200), "of %d", len(want))
		}
	}
	require.Greater(t, most, 8)
	require.Less(t, len(got), most*leastInPart, "so the parts were more, and are fewer again")
	for n := range 3000 {
		services.Delete(Key{Namespace: "shop", Name: fmt.Sprint("s", n)})
	}
	g.Flush()
	require.Empty(t, got)
	require.Empty(t, services.indexes[ByNamespace].listed)
	services.Set(service(1))
	g.Flush()
	require.Len(t, inParts, 1)
}

// TestWhatWasListedStays: who has a list keeps it as it was.
func TestWhatWasListedStays(t *testing.T) {
	services := NewStore(memo.New()).Services
	for n := range 100 {
		s := &corev1.Service{}
		s.Namespace, s.Name = "shop", fmt.Sprintf("s%02d", n)
		services.Set(s)
	}
	before := services.By(nil, ByNamespace, "shop")
	kept := slices.Clone(before)
	services.Delete(before[50])
	require.Len(t, services.By(nil, ByNamespace, "shop"), 99)
	require.Equal(t, kept, before)
}
