// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestContextsAreForgotten: the clusters that most identities dialled are renewed, and no more of them than there must.
func TestContextsAreForgotten(t *testing.T) {
	start := time.Now()
	c := noContexts()
	for n := range 10 {
		c.begin(fmt.Sprint("busy-", n), start)
		c.begin(fmt.Sprint("own-", n), start)
	}
	c.note("elsewhere", "in plain", start)
	for n := range 10 {
		c.note("victim", fmt.Sprint("own-", n), start)
		for id := range 30 {
			c.note(fmt.Sprint("id-", id), fmt.Sprint("busy-", n), start)
			c.note(fmt.Sprint("id-", id), fmt.Sprint("busy-", n), start)
		}
	}
	require.Equal(t, 10*29, c.further, "the first one of an address is in its price")
	require.Empty(t, c.tooMany(290))
	renew := c.tooMany(200)
	require.Equal(t, []string{"busy-0", "busy-1", "busy-2", "busy-3", "busy-4"}, renew, "until three quarters are left")
	now := start.Add(time.Minute)
	for _, address := range renew {
		c.begin(address, now)
	}
	require.Equal(t, 5*29, c.further)
	c.note("id-0", "busy-0", start.Add(time.Second))
	require.Empty(t, c.of["busy-0"].identities, "it dialled the one before")
	c.note("id-0", "busy-0", now)
	c.note("id-1", "busy-0", now)
	require.Equal(t, 5*29+1, c.further)
	c.forget("busy-0")
	c.forget("busy-9")
	c.forget("gone")
	require.Equal(t, 4*29, c.further)
}

// TestContextsAreBounded does all that can happen, in any order: no address is lost, and after each look there are no
// more than there is room for.
func TestContextsAreBounded(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, seed))
	c, now := noContexts(), time.Now()
	held := map[string]bool{}
	for step := range 5000 {
		now = now.Add(time.Second)
		address := fmt.Sprint("address-", r.IntN(50))
		switch r.IntN(8) {
		case 0:
			held[address] = true
			c.begin(address, now)
		case 1:
			delete(held, address)
			c.forget(address)
		default:
			for range r.IntN(40) {
				c.note(fmt.Sprint("id-", r.IntN(30)), fmt.Sprint("address-", r.IntN(50)), now)
			}
		}
		if r.IntN(3) == 0 {
			room := r.IntN(300)
			for _, address := range c.tooMany(room) {
				require.Greater(t, len(c.of[address].identities), 1, "nothing is renewed that has nothing to forget")
				c.begin(address, now)
			}
			require.LessOrEqual(t, c.further, room, "step %d", step)
		}
		further := 0
		for _, m := range c.of {
			further += max(0, len(m.identities)-1)
		}
		require.Equal(t, further, c.further, "step %d", step)
		require.Len(t, c.of, len(held), "step %d", step)
	}
}

// TestPodsAreLookedAtWhenTheyMayHaveTooMuch, and not before.
func TestPodsAreLookedAtWhenTheyMayHaveTooMuch(t *testing.T) {
	now := time.Now()
	c := noContexts()
	require.True(t, c.unsure(1, 10000, now), "nobody looked yet")
	c.looked = now
	for n := range 1000 {
		c.begin(fmt.Sprint(n), now)
	}
	later := now.Add(20 * time.Minute)
	require.False(t, c.unsure(10, 10000, later), "so many can't become too many")
	require.True(t, c.unsure(11, 10000, later), "they may")
	require.True(t, c.unsure(40, 30000, later))
	require.False(t, c.unsure(40, 30000, now), "not in so short a time")
	c.further = 9000
	require.False(t, c.unsure(1, 10000, later))
	require.True(t, c.unsure(2, 10000, later), "with those that there are")
	require.True(t, c.unsure(0, 10000, now.Add(names.DialledTime/2)), "before the kernel forgets")
}

// TestRoomForContexts is what addresses leave, and a quarter in any case.
func TestRoomForContexts(t *testing.T) {
	e := newRoom(0, 100)
	require.Equal(t, 200, e.forContexts())
	for n := range 80 {
		e.admit(fmt.Sprint(n))
	}
	require.Equal(t, 50, e.forContexts())
	for n := range 100 {
		e.admit(fmt.Sprint(n))
	}
	require.Equal(t, 50, e.forContexts())
}

func workload(t testing.TB, address string) *xds.Resource {
	return must(t, address, upstream.Destination(model.Destination{
		Address: netip.MustParseAddrPort(address), Kind: model.DestinationWorkload,
		Identities: []string{"spiffe://a/ns/b/sa/c"},
	}))
}

// TestClustersAreRenewed: what too many identities dialled is given to Envoy anew. It has all of it at any time, the
// operator isn't asked again, and an agent that restarts goes on with that.
func TestClustersAreRenewed(t *testing.T) {
	o := newOperator(t)
	opts := Options{Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 8, NodeID: "n1", SnapshotPath: shortDir(t) + "/snapshot"}
	a := startRelay(t, opts)
	busy, quiet := workload(t, "10.0.0.1:80"), workload(t, "10.0.0.2:80")
	plain := must(t, "10.0.0.3:80", upstream.Destination(model.Destination{
		Address: netip.MustParseAddrPort("10.0.0.3:80"), Kind: model.DestinationPassthrough,
	}))
	o.apply(busy, quiet, plain)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, busy.Name(), quiet.Name(), plain.Name())
	eventually.True(a.t, "all", func() bool { return e.runs(busy) && e.runs(quiet) && e.runs(plain) })
	dial := func(at time.Time, names ...string) {
		for id := range 12 {
			when := map[string]time.Time{quiet.Name(): at}
			for _, name := range names {
				when[name] = at
			}
			if id > 1 {
				delete(when, quiet.Name())
			}
			a.DialledBy(fmt.Sprint("id-", id), when)
		}
	}
	require.True(t, a.Unsure(1))
	dial(time.Now().Add(-time.Second), busy.Name(), plain.Name()) // before Envoy had them
	require.EqualValues(t, 12, gauge(t, a.metrics.contexts), "11 of one and 1 of the other; none in plain")
	a.Forget()
	require.EqualValues(t, 1, gauge(t, a.metrics.contexts))
	var renewed *xds.Resource
	eventually.True(a.t, "the busy one anew", func() bool {
		renewed, _ = a.cache.Get(scope.Key(xds.TypeCluster, busy.Name()))
		return renewed != nil && !renewed.Equal(busy) && e.runs(renewed)
	})
	require.True(t, e.runs(quiet) && e.runs(plain))
	require.False(t, e.knowsGone(xds.TypeCluster, busy.Name()))
	require.EqualValues(t, 1, count(t, a.metrics.renewed))
	a.Forget()
	require.EqualValues(t, 1, count(t, a.metrics.renewed), "it stays")
	eventually.True(a.t, "ACK of what the operator said", func() bool { s, _ := o.state(busy); return s == xds.Acked })

	// What the operator sends again is no other.
	require.NoError(t, a.writeSnapshot())
	o.stop()
	eventually.True(a.t, "operator away", func() bool { return !a.Status().Connected })
	o.start()
	eventually.True(a.t, "operator back", func() bool { return a.Status().Connected })
	a.stop()
	e.stop()
	a = startRelay(t, opts)
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster, busy.Name(), quiet.Name(), plain.Name())
	eventually.True(a.t, "all as they were", func() bool { return e.runs(renewed) && e.runs(quiet) && e.runs(plain) })
	dial(time.Now().Add(-time.Minute), busy.Name())
	require.EqualValues(t, 12, gauge(t, a.metrics.contexts), "Envoy may have run on")

	changed := must(t, busy.Name(), upstream.Destination(model.Destination{
		Address: netip.MustParseAddrPort(busy.Name()), Kind: model.DestinationWorkload,
	}))
	o.apply(changed)
	eventually.True(a.t, "another one", func() bool { return e.runs(changed) })
	dial(time.Now().Add(-time.Minute), busy.Name())
	require.EqualValues(t, 1, gauge(t, a.metrics.contexts), "has none of those that the one before had")
}
