// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStrangersOfTheLastHour: what is older counts no more, and what may be older never did.
func TestStrangersOfTheLastHour(t *testing.T) {
	now := noon
	s := NewStrangers()
	s.now, s.began = func() time.Time { return now }, noon
	web, legacy := Workload{Namespace: "shop", Name: "web"}, Origin{Kind: OriginPod, Namespace: "legacy"}
	add := func(from Origin, kind Kind, n uint64, since time.Time) {
		s.Add(web, from, Growth{Count: Count{Series: Series{Kind: kind}, Since: since}, Added: n, First: true})
	}
	add(legacy, Plaintext, 120, noon)
	add(legacy, Strict, 1, noon)
	add(Origin{Kind: OriginNode}, Plaintext, 3, noon)
	add(Origin{Kind: OriginOutside}, Plaintext, 1000, noon.Add(-2*time.Hour))
	require.Equal(t, []Stranger{
		{Workload: web, From: legacy, LetIn: 120, Refused: 1}, {Workload: web, From: Origin{Kind: OriginNode}, LetIn: 3},
	}, s.List())
	require.Equal(t, noon, s.Since())

	now = noon.Add(30 * time.Minute)
	add(legacy, Plaintext, 1, now)
	require.EqualValues(t, 121, s.List()[0].LetIn)
	now = noon.Add(65 * time.Minute)
	require.Equal(t, []Stranger{{Workload: web, From: legacy, LetIn: 1}}, s.List())
	require.Equal(t, now.Add(-time.Hour), s.Since())
	now = noon.Add(3 * time.Hour)
	require.Empty(t, s.List())
}

// TestStrangersOfAllAreTold: workloads to which very many come leave room to those of other namespaces, and what is old
// makes room.
func TestStrangersOfAllAreTold(t *testing.T) {
	now := noon
	s := NewStrangers()
	s.now, s.began = func() time.Time { return now }, noon
	add := func(ns string, n int) {
		s.Add(Workload{Namespace: ns, Name: fmt.Sprint(n)}, Origin{Kind: OriginOutside},
			Growth{Count: Count{Series: Series{Kind: Plaintext}, Since: now}, Added: 1, First: true})
	}
	of := func(ns string) (n int) {
		for p := range s.of {
			if p.to.Namespace == ns {
				n++
			}
		}
		return n
	}
	for ns := range 20 {
		for n := range maxStrangers / 4 {
			add(fmt.Sprint("hostile-", ns), n)
		}
	}
	require.LessOrEqual(t, len(s.of), maxStrangers)
	require.LessOrEqual(t, of("hostile-0"), maxStrangers/(perFreeOfStrangers+1))
	for n := range 100 {
		add("shop", n)
	}
	require.Equal(t, 100, of("shop"))
	now = now.Add(2 * window)
	for n := range maxStrangers / 4 {
		add("hostile-0", n)
	}
	require.Equal(t, maxStrangers/(perFreeOfStrangers+1), of("hostile-0"))
	require.Equal(t, of("hostile-0"), len(s.of))
	require.Equal(t, len(s.of), s.room.Used())
}
