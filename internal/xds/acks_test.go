// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
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

// TestContentThatCameBackAfterARejection: of a response that was rejected for something else in it, a proxy may have
// taken what was good. What it had before is not in force there until it has acknowledged that anew.
func TestContentThatCameBackAfterARejection(t *testing.T) {
	f, c := started(t)
	key := testScope.Key(TypeRoute, "r1")
	is := func(state AckState, moving bool) func() bool {
		return func() bool {
			proxies := f.server.State(key).Proxies
			return len(proxies) == 1 && proxies[0].State == state && proxies[0].Moving == moving
		}
	}
	c.subscribe(TypeRoute, "a-bad-one", "another")
	f.apply(route(t, "a-bad-one", 1), route(t, "another", 1))
	c.expect(TypeRoute, "a-bad-one", "another")
	eventually.True(t, "acknowledged", is(Acked, false))
	f.apply(route(t, "r1", 2), route(t, "a-bad-one", 2), route(t, "another", 2))
	all := c.recv()
	require.Len(t, all.GetResources(), 3)
	f.apply(route(t, "r1", 1))
	require.True(t, is(Pending, true)())
	c.nack(all, "a-bad-one is bad")
	first := c.recv()
	require.NotContains(t, resourceNames(first), "r1", "others are isolated before it")
	require.True(t, is(Pending, true)(), "it may have taken the other one")
	c.nack(first, "a-bad-one is bad")
	eventually.True(t, "acknowledged again", func() bool {
		r := c.recv()
		has := slices.Contains(resourceNames(r), "r1")
		if slices.Contains(resourceNames(r), "a-bad-one") {
			c.nack(r, "a-bad-one is bad")
		} else {
			c.ack(r)
		}
		return has
	})
	eventually.True(t, "acknowledged again", is(Acked, false))
}

func resourceNames(r *discoveryv3.DeltaDiscoveryResponse) (out []string) {
	for _, res := range r.GetResources() {
		out = append(out, res.GetName())
	}
	return out
}
