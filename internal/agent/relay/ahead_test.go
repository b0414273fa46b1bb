// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestAheadOfWhatTheOperatorSends: Envoy gets nothing new, and it isn't Current, before who is ahead of it is ready;
// and that one hears when it is.
func TestAheadOfWhatTheOperatorSends(t *testing.T) {
	o := newOperator(t)
	var a *agent
	asked, ready := make(chan []xds.ID), make(chan struct{})
	var changes atomic.Int64
	current := make(chan *xds.Resource, 8)
	a = startRelay(t, Options{
		Dial:    o.dial,
		Changed: func() { changes.Add(1) },
		Ahead: func(_ context.Context, ids []xds.ID) func() {
			asked <- ids
			<-ready
			return func() { current <- a.Current(xds.TypeCluster)["a"] }
		},
	})
	e := a.envoy(nil)
	one, two := cluster(t, "a", 1), cluster(t, "a", 2)
	o.apply(one)
	e.subscribe(xds.TypeCluster, "a")
	var before *xds.Resource
	for _, next := range []*xds.Resource{one, two} {
		o.apply(next)
		require.Equal(t, []xds.ID{{TypeURL: xds.TypeCluster, Name: "a"}}, <-asked)
		require.Equal(t, before, a.Current(xds.TypeCluster)["a"])
		require.False(t, e.runs(next))
		was := changes.Load()
		ready <- struct{}{}
		require.Equal(t, next.Version(), (<-current).Version())
		require.Greater(t, changes.Load(), was)
		eventually.True(t, "Envoy has it", func() bool { return e.runs(next) })
		before = a.Current(xds.TypeCluster)["a"]
	}
	go func() { <-asked; ready <- struct{}{} }()
	o.remove(xds.TypeCluster, "a")
	eventually.True(t, "it is gone", func() bool { return e.knowsGone(xds.TypeCluster, "a") })
	require.Nil(t, <-current)
}

// TestCurrentIsWhatEnvoyTakes: what it rejects is none.
func TestCurrentIsWhatEnvoyTakes(t *testing.T) {
	o := newOperator(t)
	bad := cluster(t, "a", 2)
	a := startRelay(t, Options{Dial: o.dial})
	e := a.envoy(map[string]string{bad.Version(): "no"})
	one := cluster(t, "a", 1)
	o.apply(one)
	e.subscribe(xds.TypeCluster, "a")
	eventually.True(t, "Envoy has it", func() bool { return e.runs(one) })
	require.Contains(t, a.Current(xds.TypeCluster), "a")
	o.apply(bad)
	eventually.True(t, "it is rejected", func() bool { return len(a.Current(xds.TypeCluster)) == 0 })
}

// TestWaitSettled waits for those who ask for a resource, and for nobody else.
func TestWaitSettled(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial})
	own := endpoints(t, "own", 1)
	id := xds.ID{TypeURL: own.TypeURL(), Name: "own"}
	a.SetLocal(id.TypeURL, updates(own))
	require.NoError(t, a.WaitSettled(t.Context(), id), "no Envoy")
	e := a.envoy(nil)
	hold := make(chan struct{})
	e.mu.Lock()
	e.hold = hold
	e.mu.Unlock()
	e.subscribe(id.TypeURL, "own")
	eventually.True(t, "Envoy hears of it", func() bool { return e.responses() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, a.WaitSettled(ctx, id), context.Canceled)
	close(hold)
	require.NoError(t, a.WaitSettled(t.Context(), id))
}
