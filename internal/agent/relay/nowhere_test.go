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
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestOnlyWhatNobodyDialledIsForgotten does all that can happen to addresses, in any order: each is held or forgotten
// or neither, and none is forgotten that was dialled within the hour.
func TestOnlyWhatNobodyDialledIsForgotten(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, seed))
	n, now := noNowhere(), time.Now()
	idle := map[string]time.Time{} // since when, as seen from outside
	for step := range 20000 {
		now = now.Add(time.Duration(r.IntN(60)) * time.Second)
		address := fmt.Sprint("address-", r.IntN(200))
		switch r.IntN(6) {
		case 0, 1:
			if _, forgotten := n.forgotten[address]; !forgotten {
				n.begin(address, now)
				if idle[address].IsZero() {
					idle[address] = now
				}
			}
		case 2:
			n.end(address)
			delete(idle, address)
		case 3:
			_, forgotten := n.forgotten[address]
			require.Equal(t, forgotten, n.note(address, now), "step %d", step)
			if forgotten {
				n.end(address)
				n.begin(address, now)
			}
			if !idle[address].IsZero() {
				idle[address] = now
			}
		case 4:
			at := now.Add(-time.Duration(r.IntN(200)) * time.Minute)
			since, forgotten := n.forgotten[address]
			require.Equal(t, forgotten && !at.Before(since), n.note(address, at), "step %d", step)
			if !idle[address].IsZero() && !forgotten && at.After(idle[address]) {
				idle[address] = at
			}
		case 5:
			for _, gone := range n.forget(now) {
				require.Greater(t, now.Sub(idle[gone]), names.DialledTime, "step %d", step)
			}
			for held, since := range n.held {
				require.LessOrEqual(t, now.Sub(since), names.DialledTime, "step %d: %s", step, held)
			}
		}
		require.Len(t, idle, len(n.held)+len(n.forgotten), "step %d", step)
	}
}

func refused(t testing.TB, address string) *xds.Resource {
	return must(t, address, upstream.Destination(model.Destination{
		Address: netip.MustParseAddrPort(address), Kind: model.DestinationRefused,
	}))
}

// TestAddressesThatLeadNowhereAreForgotten: Envoy has them no longer, the operator is asked for them as before, and
// Envoy has one again as soon as it leads somewhere, is dialled, or is asked for by another Envoy.
func TestAddressesThatLeadNowhereAreForgotten(t *testing.T) {
	o := newOperator(t)
	now := clocktesting.NewFakePassiveClock(time.Now())
	opts := Options{
		Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 8, NodeID: "n1", SnapshotPath: shortDir(t) + "/snapshot", Clock: now,
	}
	a := startRelay(t, opts)
	live := workload(t, "10.0.0.1:80")
	var gone []*xds.Resource
	for i := range 5 {
		gone = append(gone, refused(t, fmt.Sprintf("10.0.1.%d:80", i)))
	}
	o.apply(append(gone, live)...)
	e := a.envoy(nil)
	has := func(what ...*xds.Resource) {
		t.Helper()
		eventually.True(t, "Envoy has them", func() bool {
			for _, r := range what {
				if !e.runs(r) {
					return false
				}
			}
			return true
		})
	}
	hasNot := func(what ...*xds.Resource) {
		t.Helper()
		eventually.True(t, "Envoy forgets them", func() bool {
			have := e.snapshot()
			for _, r := range what {
				if _, still := have[r.TypeURL()+" "+r.Name()]; still {
					return false
				}
			}
			return true
		})
	}
	for _, r := range append(gone, live) {
		e.subscribe(xds.TypeCluster, r.Name())
	}
	has(append(gone, live)...)

	now.SetTime(now.Now().Add(names.DialledTime / 2))
	a.DialledBy("id", map[string]time.Time{gone[0].Name(): now.Now()})
	a.Forget()
	require.EqualValues(t, 0, gauge(t, a.metrics.forgotten))
	now.SetTime(now.Now().Add(names.DialledTime/2 + time.Second))
	a.Forget()
	hasNot(gone[1:]...)
	has(gone[0], live)
	require.EqualValues(t, 4, gauge(t, a.metrics.forgotten))
	require.EqualValues(t, 2, gauge(t, a.metrics.onDemand))
	require.False(t, a.Short(), "nobody waits for room")
	for _, r := range gone {
		require.True(t, o.wants(xds.TypeCluster, r.Name()))
	}

	// One leads somewhere, another one still doesn't.
	found := workload(t, gone[1].Name())
	o.apply(found)
	has(found)
	require.EqualValues(t, 3, gauge(t, a.metrics.forgotten))

	// Somebody dials one.
	a.DialledBy("id", map[string]time.Time{
		gone[2].Name(): now.Now().Add(time.Second), gone[3].Name(): now.Now().Add(-time.Minute),
	})
	has(gone[2])
	hasNot(gone[3], gone[4])

	// The operator comes back and says what it said before; an Envoy that comes back asks because somebody dials.
	o.stop()
	eventually.True(t, "operator away", func() bool { return !a.Status().Connected })
	o.start()
	eventually.True(t, "operator back", func() bool { return a.Status().Connected })
	hasNot(gone[3], gone[4])
	e.stop()
	eventually.True(t, "nobody asks", func() bool { return !o.wants(xds.TypeCluster, gone[3].Name()) })
	require.True(t, o.wants(xds.TypeCluster, live.Name()), "Envoy is likely to come back")
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster, gone[3].Name(), live.Name())
	has(gone[3], live)
	require.False(t, o.wants(xds.TypeCluster, gone[4].Name()))
}

// TestForgottenAddressesFindNoRoom: what leads somewhere again waits for room like any other, and gets it.
func TestForgottenAddressesFindNoRoom(t *testing.T) {
	o := newOperator(t)
	now := clocktesting.NewFakePassiveClock(time.Now())
	a := startRelay(t, Options{Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 3, NodeID: "n1", Clock: now})
	gone, first, second := refused(t, "10.0.1.1:80"), workload(t, "10.0.0.1:80"), workload(t, "10.0.0.2:80")
	idle := workload(t, "10.0.0.3:80")
	o.apply(gone, first, second, idle)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, gone.Name(), first.Name(), idle.Name())
	eventually.True(t, "all", func() bool { return e.runs(gone) && e.runs(first) && e.runs(idle) })
	now.SetTime(now.Now().Add(2 * names.DialledTime))
	a.Forget()
	e.subscribe(xds.TypeCluster, second.Name())
	eventually.True(t, "room was given back", func() bool { return e.runs(second) })
	found := workload(t, gone.Name())
	o.apply(found)
	eventually.True(t, "it waits", a.Short)
	require.False(t, e.runs(found))
	a.Prefer([][]string{{gone.Name()}, {first.Name()}})
	eventually.True(t, "dialled lately", func() bool { return e.runs(found) && e.runs(first) })
}
