// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// arrives says how many endpoints a new cluster's assignment gets.
func (e *room) arrives(cluster, name string, total int) int {
	e.refer(cluster, name)
	return e.change(name, math.MaxInt, func(a *allotment) { a.total = total }).given()
}

func TestRoomForEndpoints(t *testing.T) {
	e := newRoom(100, 20)
	require.Equal(t, 58, e.arrives("1", "a", 58))
	require.Equal(t, 8, e.arrives("2", "small", 8), "what each gets does not count")
	require.Equal(t, 50, e.used)
	require.Equal(t, 58, e.arrives("3", "b", 1000), "what is left")
	require.Equal(t, 942, e.out)
	require.Equal(t, 8, e.arrives("4", "c", 1000), "nothing is left")
	require.Equal(t, 5, e.arrives("5", "d", 5))

	require.Equal(t, 58, e.arrives("1", "a", 500), "what has some keeps it, and finds no more")
	require.Equal(t, 18, e.arrives("1", "a", 18), "and gives back what it doesn't need")
	require.Equal(t, 48, e.arrives("4", "c", 1000))

	require.Equal(t, []string{"b"}, e.refer("6", "b"))
	require.Equal(t, 8+50/2, e.of["b"].given(), "each cluster has endpoints of its own")
	require.Equal(t, 100, e.used)
	require.Equal(t, []string{"b", "c"}, e.refer("6", "c"), "a Service that gets a waypoint, say")
	require.Equal(t, 8+40/2, e.of["c"].given())
	for _, cluster := range []string{"1", "2", "3", "4", "5", "6"} {
		e.refer(cluster, "")
	}
	for _, name := range []string{"a", "b", "c", "d", "small"} {
		e.change(name, math.MaxInt, func(a *allotment) { a.total = 0 })
	}
	require.Equal(t, newRoom(100, 20), e, "nothing is left")

	callers := "callers/node/shop/web/80/1"
	require.Equal(t, 8+100/3, e.arrives("1", callers, 1000), "what is picked by its callers costs more")
}

func TestRoomIsForThoseThatWantLittle(t *testing.T) {
	e := newRoom(1000, 20)
	var hog []string
	for n := range 20 {
		hog = append(hog, fmt.Sprint("hog-", n))
		e.arrives(hog[n], hog[n], 500)
	}
	require.Equal(t, 8, e.arrives("mine", "mine", 408), "who comes last finds nothing")
	require.Equal(t, 8, e.arrives("ours", "ours", 308))
	require.Equal(t, 8, e.arrives("idle", "idle", 100))

	changed := e.prefer([][]string{append(hog, "ours"), {"mine", "ours", "gone"}, {"ours"}})
	require.Equal(t, 408, e.of["mine"].given())
	require.Equal(t, 308, e.of["ours"].given())
	require.Equal(t, 308, e.of["hog-0"].given(), "the rest")
	require.Equal(t, 8, e.of["hog-1"].given())
	require.Equal(t, 8, e.of["idle"].given(), "what nobody dialled lately comes last")
	require.Equal(t, []string{"hog-0", "hog-1", "hog-2", "mine", "ours"}, changed)
	require.Equal(t, 1000, e.used)
	require.Empty(t, e.prefer([][]string{append(hog, "ours"), {"mine", "ours"}, {"ours"}}), "it stays")

	require.Equal(t, 8, e.arrives("new", "new", 100))
	require.Equal(t, []string{"hog-0", "idle", "new"}, e.prefer([][]string{{"new"}, {"mine"}, nil}),
		"it is given back once nobody dials it")
	require.Equal(t, 1000, e.used)
}

// TestRoomIsNeverExceeded does all that can happen, in any order.
func TestRoomIsNeverExceeded(t *testing.T) {
	const limit, seed = 500, 3
	r := rand.New(rand.NewPCG(seed, seed))
	e := newRoom(limit, 20)
	cluster := func() string { return fmt.Sprint("cluster-", r.IntN(40)) }
	assignments := []string{"", "a", "b", "c", "d", "e", "f", "callers/node/shop/web/80/1", "callers/node/shop/web/81/1"}
	for step := range 20000 {
		name := assignments[1+r.IntN(len(assignments)-1)]
		switch r.IntN(5) {
		case 0, 1:
			e.refer(cluster(), assignments[r.IntN(len(assignments))])
		case 2:
			total := r.IntN(300)
			e.change(name, total, func(a *allotment) { a.total, a.callers = total, r.IntN(3) })
		case 3:
			e.change(name, math.MaxInt, func(a *allotment) { a.total = 0 })
		case 4:
			e.prefer([][]string{{cluster(), cluster(), cluster()}, {cluster()}, {"unknown"}})
		}
		used, out, cost, clusters := 0, 0, 0, 0
		for name, a := range e.of {
			used += a.beyond()
			out += a.total - a.given()
			cost += a.clusters * a.ofCluster()
			clusters += a.clusters
			require.GreaterOrEqual(t, a.given(), min(a.total, leastEndpoints), "%s in step %d", name, step)
		}
		require.LessOrEqual(t, used, limit, "step %d", step)
		require.Equal(t, []int{used, out, cost, clusters}, []int{e.used, e.out, e.cost, len(e.clusters)}, "step %d", step)
	}
}
