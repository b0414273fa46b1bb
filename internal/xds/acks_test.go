// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestContentThatWentAndCameBack isn't acknowledged while a proxy may still have what was there between: whoever reads
// in a status that a policy is in force must not meet what was before it.
func TestContentThatWentAndCameBack(t *testing.T) {
	f, c := started(t)
	key := testScope.Key(TypeRoute, "r1")
	is := func(state AckState, moving bool) func() bool {
		return func() bool {
			proxies := f.server.State(key).Proxies
			return len(proxies) == 1 && proxies[0].State == state && proxies[0].Moving == moving
		}
	}
	eventually.True(t, "acknowledged", is(Acked, false))
	f.apply(route(t, "r1", 2))
	other := c.recv()
	require.True(t, is(Pending, false)())
	f.apply(route(t, "r1", 1))
	require.True(t, is(Pending, true)(), "it may have taken the other one")
	c.ack(other)
	back := c.recv()
	require.True(t, is(Pending, false)(), "it has taken the other one, or this")
	c.ack(back)
	eventually.True(t, "acknowledged again", is(Acked, false))
}

// TestTheFirstContentIsUnderWay: a proxy that has acknowledged nothing may run what was sent and has changed since.
func TestTheFirstContentIsUnderWay(t *testing.T) {
	f, c := started(t)
	c.subscribe(TypeRoute, "new")
	f.apply(route(t, "new", 2))
	first := c.recv()
	f.apply(route(t, "new", 3))
	proxies := f.server.State(testScope.Key(TypeRoute, "new")).Proxies
	require.Len(t, proxies, 1)
	require.Empty(t, proxies[0].Version)
	require.True(t, proxies[0].Moving)
	c.ack(first)
	c.expect(TypeRoute, "new")
}
