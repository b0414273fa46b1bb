// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func TestAckIsRelayedOnlyWhenEnvoyHasAcked(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	c := cluster(t, "a", 1)
	o.apply(c)
	e := a.envoy(nil)
	hold := make(chan struct{})
	e.mu.Lock()
	e.hold = hold
	e.mu.Unlock()
	e.subscribe(xds.TypeCluster, "a")
	eventually.True(a.t, "cluster at Envoy", func() bool { return e.runs(c) })
	state, _ := o.state(c)
	require.Equal(t, xds.Pending, state)
	close(hold)
	eventually.True(a.t, "ACK at the operator", func() bool { s, _ := o.state(c); return s == xds.Acked })
	require.True(t, a.Status().Connected)
}

func TestWildcardIsRelayed(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	one, two := cluster(t, "one", 1), cluster(t, "two", 1)
	o.apply(one)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(a.t, "wildcard at the operator", func() bool { return o.wants(xds.TypeCluster, xds.Wildcard) })
	require.Empty(t, e.snapshot(), "the operator is not ready")
	o.apply(two)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	eventually.True(a.t, "clusters", func() bool { return e.runs(one) && e.runs(two) })
	o.remove(xds.TypeCluster, "one")
	eventually.True(a.t, "removal", func() bool { return e.knowsGone(xds.TypeCluster, "one") })
}

func TestNackIsRelayedAndTheLastGoodVersionStays(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	good, bad, other := cluster(t, "a", 1), cluster(t, "a", 2), cluster(t, "b", 1)
	o.apply(good, other)
	reject := map[string]string{bad.Version(): "no such thing"}
	e := a.envoy(reject)
	e.subscribe(xds.TypeCluster, "a", "b")
	eventually.True(a.t, "good", func() bool { return e.runs(good) && e.runs(other) })
	otherNew := cluster(t, "b", 2)
	o.apply(bad, otherNew)
	eventually.True(a.t, "NACK at the operator", func() bool {
		s, text := o.state(bad)
		return s == xds.Rejected && text == "no such thing"
	})
	eventually.True(a.t, "the other's update", func() bool {
		s, _ := o.state(otherNew)
		return s == xds.Acked && e.runs(otherNew)
	})
	require.True(t, e.runs(good))

	e.stop()
	again := a.envoy(reject)
	again.subscribe(xds.TypeCluster, "a", "b")
	eventually.True(a.t, "last good for a restarted Envoy", func() bool {
		return again.runs(good) && again.runs(otherNew)
	})
	s, _ := o.state(bad)
	require.Equal(t, xds.Rejected, s)

	fixed := cluster(t, "a", 3)
	o.apply(fixed)
	eventually.True(a.t, "fixed", func() bool { s, _ := o.state(fixed); return s == xds.Acked && again.runs(fixed) })
}

func TestOperatorLearnsOfALateNack(t *testing.T) {
	for name, subscribe := range map[string][]string{"named": {"a"}, "wildcard": nil} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t)
			a := startRelay(t, Options{Dial: o.dial})
			first, bad := cluster(t, "a", 1), cluster(t, "a", 2)
			o.apply(first)
			o.cache.Ready(nodeScope, xds.TypeCluster)
			e := a.envoy(nil)
			e.subscribe(xds.TypeCluster, subscribe...)
			eventually.True(a.t, "first", func() bool { s, _ := o.state(first); return s == xds.Acked })
			e.stop()
			eventually.True(a.t, "Envoy away", func() bool { return len(a.Proxies()) == 0 })
			o.apply(bad)
			eventually.True(a.t, "ACK without Envoy", func() bool { s, _ := o.state(bad); return s == xds.Acked })
			e = a.envoy(map[string]string{bad.Version(): "bad"})
			e.subscribe(xds.TypeCluster, subscribe...)
			eventually.True(a.t, "NACK at the operator", func() bool {
				s, text := o.state(bad)
				return s == xds.Rejected && text == "bad"
			})
			eventually.True(a.t, "last good", func() bool { return e.runs(first) })
		})
	}
}

func TestOperatorAwayAndBack(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	one, two, gone := cluster(t, "one", 1), cluster(t, "two", 1), cluster(t, "gone", 1)
	o.apply(one, two, gone)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(a.t, "all", func() bool { return len(e.snapshot()) == 3 })
	eventually.True(a.t, "ACK", func() bool { s, _ := o.state(one); return s == xds.Acked })

	o.stop()
	eventually.True(a.t, "operator away", func() bool { return !a.Status().Connected })
	require.NotEmpty(t, a.Status().LastError)
	e.stop()
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(a.t, "a restarted Envoy is served", func() bool { return len(e.snapshot()) == 3 })

	received := count(t, a.metrics.received)
	two = cluster(t, "two", 2)
	o.apply(two)
	o.remove(xds.TypeCluster, "gone")
	o.start()
	eventually.True(a.t, "changes while away", func() bool { return e.runs(two) && e.knowsGone(xds.TypeCluster, "gone") })
	eventually.True(a.t, "ACKs", func() bool {
		s1, _ := o.state(one)
		s2, _ := o.state(two)
		return s1 == xds.Acked && s2 == xds.Acked
	})
	require.Equal(t, received+1, count(t, a.metrics.received), "only what changed is sent again")
}

// TestAStreamThatTheOperatorEndsCostsNothing: streams have an age, and Envoy must not notice.
func TestAStreamThatTheOperatorEndsCostsNothing(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	one := cluster(t, "one", 1)
	o.apply(one)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(a.t, "ACK", func() bool { s, _ := o.state(one); return s == xds.Acked })
	received, breaks := count(t, a.metrics.received), count(t, a.metrics.breaks)
	responses := e.responses()

	o.server.Disconnect("uid")
	eventually.True(a.t, "another stream", func() bool {
		s, _ := o.state(one)
		return count(t, a.metrics.breaks) > breaks && a.Status().Connected && s == xds.Acked
	})
	two := cluster(t, "two", 1)
	o.apply(two)
	eventually.True(a.t, "it goes on", func() bool { return e.runs(two) })
	require.Equal(t, received+1, count(t, a.metrics.received))
	require.Equal(t, responses+1, e.responses())
}

// TestClustersOnDemandAreBounded: what is beyond the limit fails at once, and what is there goes on.
func TestClustersOnDemandAreBounded(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, MaxOnDemand: 2})
	one, two, three := cluster(t, "one", 1), cluster(t, "two", 1), cluster(t, "three", 1)
	o.apply(one, two, three)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, "one", "two")
	eventually.True(a.t, "two", func() bool { return e.runs(one) && e.runs(two) })
	e.subscribe(xds.TypeCluster, "three")
	<-a.Asks()
	require.False(t, e.knowsGone(xds.TypeCluster, "three"), "it waits until it is known who dialled it")
	a.Prefer(nil)
	eventually.True(a.t, "no third", func() bool { return e.knowsGone(xds.TypeCluster, "three") })
	require.False(t, o.wants(xds.TypeCluster, "three"))
	require.EqualValues(t, 1, count(t, a.metrics.refused))
	require.True(t, a.Short())
	one = cluster(t, "one", 2)
	o.apply(one)
	eventually.True(a.t, "the others go on", func() bool { return e.runs(one) })

	e.stop()
	e = a.envoy(nil)
	e.subscribe(xds.TypeCluster, "one", "two")
	eventually.True(a.t, "what was there comes back", func() bool { return e.runs(one) && e.runs(two) })
	e.unsubscribe(xds.TypeCluster, "two")
	eventually.True(a.t, "room", func() bool { return !o.wants(xds.TypeCluster, "two") })
	e.subscribe(xds.TypeCluster, "three")
	eventually.True(a.t, "a third instead", func() bool { return e.runs(three) })
}

// TestSomethingNewEndsThePause: a connection waits for it.
func TestSomethingNewEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{Dial: func() (*grpc.ClientConn, error) { return nil, errors.New("not here") }})
		require.NoError(t, err)
		pause := func() time.Duration {
			start := time.Now()
			require.NoError(t, r.pause(t.Context(), defaultBackoffMax))
			return time.Since(start)
		}
		require.Equal(t, defaultBackoffMax, pause())
		ask := xds.Interest{Key: scope.Key(xds.TypeCluster, "10.96.0.1:80"), Wanted: true}
		r.interest(ask)
		got := pause()
		require.GreaterOrEqual(t, got, defaultFirstBackoff)
		require.Less(t, got, 2*defaultFirstBackoff)
		r.interest(ask)
		require.Equal(t, defaultBackoffMax, pause(), "nothing new")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, r.pause(ctx, defaultBackoffMax))
	})
}

// Of several agents that have a snapshot one writes it.
func TestSnapshotIsWrittenByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xds.snapshot")
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, SnapshotPath: path, SnapshotOfOthers: true})
	c := cluster(t, "a", 1)
	o.apply(c)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	eventually.True(t, "the cluster", func() bool { return e.runs(c) })
	require.NoError(t, a.writeSnapshot())
	require.NoFileExists(t, path)

	a.KeepSnapshot(true)
	eventually.True(t, "a snapshot", func() bool {
		r, err := New(Options{Dial: o.dial, SnapshotPath: path})
		return err == nil && len(r.list(xds.TypeCluster)) == 1
	})
	a.KeepSnapshot(false)
	require.NoError(t, os.Remove(path))
	require.NoError(t, a.writeSnapshot())
	require.NoFileExists(t, path, "another agent keeps it now")
}

func TestSnapshotServesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xds.snapshot")
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, SnapshotPath: path, Local: []string{xds.TypeSecret}})
	c, ep := cluster(t, "a", 1), endpoints(t, "e", 1)
	secret := must(t, "s", c.Any())
	require.NotNil(t, secret)
	o.apply(c, ep)
	o.cache.Ready(nodeScope, xds.TypeCluster)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster)
	e.subscribe(xds.TypeEndpoint, "e", "never")
	eventually.True(a.t, "interest", func() bool { return o.wants(xds.TypeEndpoint, "never") })
	o.remove(xds.TypeEndpoint, "never")
	eventually.True(a.t, "all", func() bool { return e.runs(c) && e.runs(ep) && e.knowsGone(xds.TypeEndpoint, "never") })
	eventually.True(a.t, "snapshot", func() bool {
		r, err := New(Options{Dial: o.dial, SnapshotPath: path})
		return err == nil && len(r.list(xds.TypeCluster)) == 1 && len(r.list(xds.TypeEndpoint)) == 1 &&
			len(r.types[xds.TypeEndpoint].known) == 2
	})
	a.stop()
	o.stop()

	b := startRelay(t, Options{Dial: o.dial, SnapshotPath: path})
	e = b.envoy(nil)
	e.subscribe(xds.TypeCluster)
	e.subscribe(xds.TypeEndpoint, "e", "never")
	eventually.True(b.t, "served without the operator", func() bool {
		return e.runs(c) && e.runs(ep) && e.knowsGone(xds.TypeEndpoint, "never")
	})
	c = cluster(t, "a", 2)
	o.apply(c)
	o.start()
	eventually.True(b.t, "change", func() bool { return e.runs(c) })
}

func TestDamagedSnapshotIsNoObstacle(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "other version": "fairway xds snapshot 0\n", "cut": snapshotHeader + "\x7fabc",
		"garbage": snapshotHeader + "\x03\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			r, err := New(Options{Dial: newOperator(t).dial, SnapshotPath: path})
			require.NoError(t, err)
			require.Empty(t, r.list(xds.TypeCluster))
		})
	}
}

func TestLocalResources(t *testing.T) {
	o := newOperator(t)
	wanted := make(chan xds.Interest, 10)
	a := startRelay(t, Options{Dial: o.dial, Local: []string{xds.TypeListener, xds.TypeSecret}})
	a.OnLocalInterest(func(i xds.Interest) { wanted <- i })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	require.ErrorContains(t, a.WaitAcked(ctx, xds.ID{TypeURL: xds.TypeListener, Name: "in"}), "not set")
	in, bad := listener(t, "in"), listener(t, "bad")
	a.SetLocal(xds.TypeListener, updates(in))
	short, stop := context.WithTimeout(ctx, time.Millisecond)
	err := a.WaitAcked(short, xds.ID{TypeURL: xds.TypeListener, Name: "in"})
	stop()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no Envoy is connected")

	e := a.envoy(map[string]string{bad.Version(): "address in use"})
	e.subscribe(xds.TypeListener)
	i := <-wanted
	require.Equal(t, xds.Interest{Key: scope.Key(xds.TypeListener, xds.Wildcard), Wanted: true}, i)
	a.LocalReady(xds.TypeListener)
	require.NoError(t, a.WaitAcked(ctx, xds.ID{TypeURL: xds.TypeListener, Name: "in"}))
	a.SetLocal(xds.TypeListener, updates(bad))
	require.EqualError(t, a.WaitAcked(ctx, xds.ID{TypeURL: xds.TypeListener, Name: "bad"}),
		`the proxy rejected "bad": address in use`)

	e.subscribe(xds.TypeSecret, "spiffe://td/ns/a/sa/b")
	require.Equal(t, "spiffe://td/ns/a/sa/b", (<-wanted).Name)
	require.False(t, o.wants(xds.TypeListener, xds.Wildcard))
	require.False(t, o.wants(xds.TypeSecret, "spiffe://td/ns/a/sa/b"))
}

func TestOwnNamesOfARelayedType(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	own, theirs := cluster(t, "own", 1), cluster(t, "theirs", 1)
	a.SetLocal(xds.TypeCluster, updates(own))
	o.apply(cluster(t, "own", 9), theirs)
	e := a.envoy(nil)
	e.subscribe(xds.TypeCluster, "own", "theirs")
	eventually.True(a.t, "both", func() bool { return e.runs(own) && e.runs(theirs) })
	require.False(t, o.wants(xds.TypeCluster, "own"))
}

func TestSubscriptionsFollowEnvoy(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, linger: time.Hour})
	one, two := endpoints(t, "one", 1), endpoints(t, "two", 1)
	o.apply(one, two)
	e := a.envoy(nil)
	e.subscribe(xds.TypeEndpoint, "one", "two", "absent")
	eventually.True(a.t, "interest", func() bool { return o.wants(xds.TypeEndpoint, "absent") })
	o.remove(xds.TypeEndpoint, "absent")
	eventually.True(a.t, "both", func() bool {
		return e.runs(one) && e.runs(two) && e.knowsGone(xds.TypeEndpoint, "absent")
	})
	e.unsubscribe(xds.TypeEndpoint, "two")
	eventually.True(a.t, "unsubscription", func() bool { return !o.wants(xds.TypeEndpoint, "two") })
	require.Len(t, a.list(xds.TypeEndpoint), 1)

	e.stop()
	eventually.True(a.t, "Envoy away", func() bool { return len(a.Proxies()) == 0 })
	eventually.True(a.t, "noted", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !a.types[xds.TypeEndpoint].subscribed["one"].IsZero()
	})
	require.True(t, o.wants(xds.TypeEndpoint, "one"), "Envoy is likely to come back")
	a.sweep(time.Now().Add(3 * time.Hour))
	require.True(t, o.wants(xds.TypeEndpoint, "one"), "no Envoy had time to ask again")

	e = a.envoy(nil)
	e.subscribe(xds.TypeEndpoint, "absent")
	eventually.True(a.t, "absent again", func() bool { return e.knowsGone(xds.TypeEndpoint, "absent") })
	a.sweep(time.Now().Add(time.Minute))
	require.Len(t, a.list(xds.TypeEndpoint), 1)
	a.sweep(time.Now().Add(3 * time.Hour))
	eventually.True(a.t, "swept", func() bool { return !o.wants(xds.TypeEndpoint, "one") })
	require.True(t, o.wants(xds.TypeEndpoint, "absent"))
}

// TestAStreamThatBreaksWithAnswersUnderWay: what can't be sent any more must not wait for what nobody reads any more.
func TestAStreamThatBreaksWithAnswersUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		responses, failed := make(chan *response), make(chan error, 1)
		gone := errors.New("gone")
		go func() {
			responses <- &response{}
			responses <- &response{}
			failed <- gone
		}()
		require.ErrorIs(t, broken(responses, failed), gone)
	})
}
