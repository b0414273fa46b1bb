// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// dial has a pod dial an address: the last one comes first.
func dial(pod *[]string, name string) {
	*pod = append([]string{name}, slices.DeleteFunc(*pod, func(n string) bool { return n == name })...)
}

// shared gives the addresses anew, as the relay does.
func (e *room) shared(pods ...[]string) (back []string) {
	back, given := e.share(pods)
	for _, name := range back {
		e.suspend(name)
		e.refer(name, "")
	}
	for _, name := range given {
		e.hold(name)
	}
	return back
}

// has tells how many of the addresses that a pod dialled it has.
func (e *room) has(pod []string) (n int) {
	for _, name := range pod {
		if _, held := e.addresses.held[name]; held {
			n++
		}
	}
	return n
}

// TestSixGreedyPodsLeaveASeventhWhatItNeeds, and share the rest equally.
func TestSixGreedyPodsLeaveASeventhWhatItNeeds(t *testing.T) {
	const limit, greed, need = 20000, 4000, 500
	e := newRoom(0, limit)
	pods := make([][]string, 7)
	for n := range greed {
		for p := range 6 {
			name := fmt.Sprintf("10.%d.0.1:%d", p, n)
			dial(&pods[p], name)
			e.admit(name)
		}
	}
	require.Len(t, e.addresses.held, limit)
	for n := range need {
		name := fmt.Sprintf("10.6.0.1:%d", n)
		dial(&pods[6], name)
		require.False(t, e.admit(name), "nothing is left")
	}
	back := e.shared(pods...)
	require.Equal(t, need, e.has(pods[6]))
	for p := range 6 {
		require.InDelta(t, (limit-need)/6, e.has(pods[p]), 200, "what is left, equally")
	}
	require.NotEmpty(t, back)
	require.NotContains(t, back, pods[0][0], "what was dialled last stays")
	require.Empty(t, e.shared(pods...), "it stays")

	// What nobody dials any more comes back first.
	idle := slices.Clone(pods[0])
	pods[0] = nil
	for n := range 1500 {
		name := fmt.Sprintf("10.7.0.1:%d", n)
		dial(&pods[0], name)
		e.admit(name)
	}
	for _, name := range e.shared(pods...) {
		require.Contains(t, idle, name)
	}
	require.Equal(t, 1500, e.has(pods[0]))
	require.Equal(t, need, e.has(pods[6]))
}

// TestAPodBelowItsPartHasAllItDials, whatever others do.
func TestAPodBelowItsPartHasAllItDials(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5))
		limit := 20 + r.IntN(200)
		e := newRoom(math.MaxInt, limit)
		pods := make([][]string, 1+r.IntN(8))
		for range 10 {
			for range r.IntN(300) {
				p := r.IntN(len(pods))
				name := fmt.Sprintf("%d:%d", r.IntN(len(pods)), r.IntN(1+limit*(p+1)/len(pods)))
				dial(&pods[p], name)
				if !e.admit(name) || r.IntN(3) == 0 {
					continue
				}
				assignment := fmt.Sprint("a-", r.IntN(20))
				e.refer(name, assignment)
				e.change(assignment, math.MaxInt, func(a *allotment) { a.total, a.callers = 1, r.IntN(4) })
				for _, back := range e.excess(e.clustersOf(map[string]bool{name: true, assignment: true})) {
					e.suspend(back)
					e.refer(back, "")
				}
			}
			wants := make([]int, len(pods))
			for p, pod := range pods {
				for _, name := range pod {
					wants[p] += e.price(name)
				}
			}
			e.shared(pods...)
			require.LessOrEqual(t, e.taken(), e.addresses.limit)
			for p, pod := range pods {
				if wants[p] <= e.addresses.limit/len(pods) {
					require.Equal(t, len(pod), e.has(pod), "seed %d", seed)
				}
			}
		}
	}
}

// TestAddressesOfManyCallersCostMore: an address of a Service for which many namespaces have routes of their own
// counts for many, however late that shows.
func TestAddressesOfManyCallersCostMore(t *testing.T) {
	e := newRoom(math.MaxInt, 100)
	const assignment = "callers/node/shop/web/80/1"
	require.True(t, e.admit("cheap"))
	require.True(t, e.admit("dear"))
	e.refer("dear", assignment)
	e.change(assignment, math.MaxInt, func(a *allotment) { a.total, a.callers = 10, 150 })
	require.Equal(t, 2+2+upstream.EndpointCost(assignment)+150, e.taken())
	require.Empty(t, e.excess([]string{"cheap", "dear"}), "there is room")
	require.True(t, e.admit("dear-as-well"))
	e.refer("dear-as-well", assignment)
	require.Equal(t, []string{"dear"}, e.excess(e.clustersOf(map[string]bool{assignment: true})))
	e.suspend("dear")
	e.refer("dear", "")
	require.LessOrEqual(t, e.taken(), 200)
	require.Empty(t, e.shared([]string{"dear-as-well"}, []string{"dear"}), "there is no room for both")
	require.Equal(t, []string{"dear-as-well"}, e.shared([]string{"dear"}))
	require.False(t, e.admit("dear-as-well"))
}

// TestAddressesAreTakenBack: who has more than its part gives addresses back for a pod that has less, and Envoy gets
// them again once there is room. An agent that restarts goes on with that.
func TestAddressesAreTakenBack(t *testing.T) {
	o := newOperator(t)
	opts := Options{Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 4, NodeID: "n1", SnapshotPath: shortDir(t) + "/snapshot"}
	a := startRelay(t, opts)
	var all []*xds.Resource
	for n := range 6 {
		all = append(all, cluster(t, fmt.Sprint("10.0.0.1:", n), 1))
	}
	o.apply(all...)
	name := func(n int) string { return all[n].Name() }
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, name(0), name(1), name(2), name(3))
	runs := func(which ...int) bool {
		return !slices.ContainsFunc(which, func(n int) bool { return !e.runs(all[n]) })
	}
	eventually.True(a.t, "all that there is room for", func() bool { return runs(0, 1, 2, 3) })
	e.subscribe(xds.TypeCluster, name(4))
	<-a.Asks()
	greedy, modest := []string{name(3), name(1), name(2), name(0)}, []string{name(4)}
	a.Prefer([][]string{greedy, modest})
	eventually.True(a.t, "what was dialled longest ago is given back", func() bool {
		return e.knowsGone(xds.TypeCluster, name(0)) && e.knowsGone(xds.TypeCluster, name(2)) && e.runs(all[4])
	})
	require.True(t, runs(1, 3))
	eventually.True(a.t, "the operator is asked no more", func() bool { return !o.wants(xds.TypeCluster, name(0)) })
	require.EqualValues(t, 2, count(t, a.metrics.takenBack))
	require.EqualValues(t, 3, gauge(t, a.metrics.onDemand))
	require.EqualValues(t, 2, gauge(t, a.metrics.waiting))

	require.NoError(t, a.writeSnapshot())
	a.stop()
	e.stop()
	a = startRelay(t, opts)
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster, name(1), name(3), name(4), name(0))
	eventually.True(a.t, "what it had, and one more", func() bool { return runs(0, 1, 3, 4) })
	e.subscribe(xds.TypeCluster, name(2))
	<-a.Asks()
	a.Prefer([][]string{{name(0), name(2)}, {name(4)}})
	eventually.True(a.t, "what nobody dials is given back", func() bool {
		return e.knowsGone(xds.TypeCluster, name(1)) && e.knowsGone(xds.TypeCluster, name(3)) && e.runs(all[2])
	})
	require.True(t, runs(0, 4))
}

// TestAddressesThatAreTooDearAreLeftOut, though it shows only when the operator has answered.
func TestAddressesThatAreTooDearAreLeftOut(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 10, NodeID: "n1"})
	const assignment = "callers/node/shop/web/80/1"
	cheap, dear := cluster(t, "10.0.0.1:80", 1), edsClusterOf(t, "10.0.0.2:80", assignment)
	o.apply(cheap, dear)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, cheap.Name(), dear.Name())
	eventually.True(a.t, "both", func() bool { return e.runs(cheap) && e.runs(dear) })
	some := model.Endpoint{Address: netip.MustParseAddrPort("10.244.0.9:15008"), MTLS: true}
	for n := range 30 {
		some.Callers = append(some.Callers, fmt.Sprint("tenant-", n))
	}
	many := must(t, assignment, upstream.NodeEndpoints(assignment, []model.Endpoint{some}))
	o.apply(many)
	e.subscribe(xds.TypeEndpoint, assignment)
	eventually.True(a.t, "it is given back", func() bool { return e.knowsGone(xds.TypeCluster, dear.Name()) })
	require.False(t, e.runs(many))
	e.unsubscribe(xds.TypeEndpoint, assignment)
	<-a.Asks()
	a.Prefer([][]string{{dear.Name()}, {cheap.Name()}})
	require.True(t, e.runs(cheap))
	require.True(t, a.Short())
}

// TestNamesAreBounded: Envoy may ask for some times as many addresses as it may have, and what is beyond fails at once.
func TestNamesAreBounded(t *testing.T) {
	a := startRelay(t, Options{Dial: newOperator(t).dial, MaxOnDemand: 2})
	e := a.envoy(nil)
	for n := range 2 * namesPerAddress {
		e.subscribe(xds.TypeCluster, fmt.Sprint("10.0.0.1:", n))
	}
	eventually.True(a.t, "all but two to wait", func() bool { return gauge(t, a.metrics.waiting) == 2*namesPerAddress-2 })
	e.subscribe(xds.TypeCluster, "10.0.0.2:80")
	eventually.True(a.t, "no more", func() bool { return e.knowsGone(xds.TypeCluster, "10.0.0.2:80") })
	e.unsubscribe(xds.TypeCluster, "10.0.0.1:9")
	e.subscribe(xds.TypeCluster, "10.0.0.3:80")
	eventually.True(a.t, "one instead", func() bool { return gauge(t, a.metrics.waiting) == 2*namesPerAddress-2 })
	require.False(t, e.knowsGone(xds.TypeCluster, "10.0.0.3:80"))
}
