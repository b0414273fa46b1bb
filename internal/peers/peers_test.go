// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func TestProxiesOfAllReplicasCount(t *testing.T) {
	a, b := pair(t, long(quick))
	var mu sync.Mutex
	told := map[xds.Key]bool{}
	cancel := a.book.OnChange(func(keys ...xds.Key) {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			told[k] = true
		}
	})
	defer cancel()
	// The first replica has no proxy yet and must derive the route only to know its version.
	b.proxy("one", "")
	eventually.True(t, "acknowledged elsewhere", a.says(1, 0, 0))
	eventually.True(t, "listeners hear of changes elsewhere", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told[scope.Key(xds.TypeRoute, route)]
	})
	a.proxy("two", "")
	b.proxy("three", "")
	for _, r := range []*replica{a, b} {
		eventually.True(t, "all acknowledged", r.says(3, 0, 0))
		eventually.True(t, "all connected", func() bool { return connected(r.book) == 3 })
	}
}

func TestNodesOfAllReplicasMustSwitch(t *testing.T) {
	const vip = "10.96.0.10:80"
	a, b := pair(t, long(quick))
	switched := func(r *replica, proxies int) func() bool {
		return func() bool {
			s := r.book.State(catalogue.AllNodes.Key(xds.TypeCluster, vip))
			return len(s.Proxies) == proxies && s.Settled() && s.Rejection() == ""
		}
	}
	slow, quickly := make(chan struct{}), make(chan struct{})
	close(quickly)
	for n := range maxTold + 2 {
		b.node(fmt.Sprint("b", n), vip, quickly)
	}
	b.node("slow", vip, slow)
	// What the first replica derives itself, only to judge: none of its own nodes has dialled the address.
	eventually.True(t, "some of the others are told of", switched(a, maxTold))
	a.node("a", vip, quickly)
	eventually.True(t, "and all of its own", switched(a, maxTold+1))
	eventually.True(t, "all nodes, and one elsewhere", switched(b, maxTold+4))

	a.edit("2")
	eventually.True(t, "its own has switched", func() bool {
		s := a.server.State(catalogue.AllNodes.Key(xds.TypeCluster, vip))
		return len(s.Proxies) == 1 && s.Settled()
	})
	require.False(t, switched(a, maxTold+1)(), "the other replica has not seen the edit")
	b.edit("2")
	eventually.True(t, "one node is behind, and among those that are told of", func() bool {
		s := a.book.State(catalogue.AllNodes.Key(xds.TypeCluster, vip))
		return slices.ContainsFunc(s.Proxies, func(p xds.ProxyAck) bool {
			return p.Proxy.Pod == "shop/slow" &&
				p.State == xds.Pending
		}) &&
			slices.ContainsFunc(s.Proxies, func(p xds.ProxyAck) bool { return p.Proxy.Pod == "shop/b0" && p.State == xds.Acked })
	})
	close(slow)
	eventually.True(t, "all have switched", switched(a, maxTold+1))
}

func TestOnlyTheVersionThatIsCurrentHereCounts(t *testing.T) {
	a, b := pair(t, long(quick))
	b.proxy("one", "")
	eventually.True(t, "acknowledged", a.says(1, 0, 0))
	a.edit("2")
	eventually.True(t, "the other replica has not seen the edit", a.says(0, 1, 0))
	b.edit("2")
	eventually.True(t, "acknowledged", a.says(1, 0, 0))
}

func TestRejections(t *testing.T) {
	a, b := pair(t, long(quick))
	b.proxy("one", "no such cluster")
	eventually.True(t, "rejected", a.says(0, 0, 1))
	assert.Equal(t, "no such cluster", a.book.State(scope.Key(xds.TypeRoute, route)).Rejection())
	a.edit("2")
	eventually.True(t, "a rejection of another version is none of this one", a.says(0, 1, 0))
	b.edit("2")
	eventually.True(t, "rejected", a.says(0, 0, 1))
}

func TestAProxyThatMovesCountsOnce(t *testing.T) {
	a, b := pair(t, long(quick))
	left := b.proxy("one", "")
	eventually.True(t, "acknowledged", a.says(1, 0, 0))
	a.proxy("one", "")
	eventually.True(t, "connected here", func() bool { return len(a.server.Proxies()) == 1 })
	require.True(t, a.says(1, 0, 0)())
	left()
	eventually.True(t, "gone there", func() bool { return len(b.server.Proxies()) == 0 })
	eventually.True(t, "still acknowledged", b.says(1, 0, 0))
	eventually.True(t, "still acknowledged", a.says(1, 0, 0))
	require.Equal(t, 1, connected(a.book))
}

func TestAReplicaThatGoesAway(t *testing.T) {
	t.Run("its proxies stay for the time of grace", func(t *testing.T) {
		a, b := pair(t, long(quick))
		b.proxy("one", "")
		eventually.True(t, "acknowledged", a.says(1, 0, 0))
		b.stop()
		eventually.True(t, "silent", func() bool { return a.silent(b.addr) })
		require.True(t, a.says(1, 0, 0)())
	})
	t.Run("and go then", func(t *testing.T) {
		a, b := pair(t, quick)
		b.proxy("one", "")
		eventually.True(t, "acknowledged", a.says(1, 0, 0))
		b.stop()
		eventually.True(t, "gone", a.says(0, 0, 0))
		require.Zero(t, connected(a.book))
		k := scope.Key(xds.TypeRoute, route)
		eventually.True(t, "no longer derived for them", func() bool { return !a.wants(k) })
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, i := range a.left {
			assert.True(t, i.Disconnected, "%v may come back", i)
		}
	})
	t.Run("or is no replica any more", func(t *testing.T) {
		a, b := pair(t, quick)
		b.proxy("one", "")
		eventually.True(t, "acknowledged", a.says(1, 0, 0))
		a.book.SetPeers(nil)
		eventually.True(t, "gone", a.says(0, 0, 0))
		eventually.True(t, "nothing left of it", func() bool {
			a.book.mu.RLock()
			defer a.book.mu.RUnlock()
			return len(a.book.remotes) == 0
		})
		a.book.SetPeers([]string{b.addr})
		eventually.True(t, "back", a.says(1, 0, 0))
	})
	t.Run("a feed ends by age and goes on without a gap", func(t *testing.T) {
		tm := long(quick)
		tm.age = 20 * time.Millisecond
		a, b := pair(t, tm)
		b.proxy("one", "")
		eventually.True(t, "acknowledged", a.says(1, 0, 0))
		eventually.True(t, "ended", func() bool { return !a.says(1, 0, 0)() || a.turn(b.addr) > 4 })
		require.True(t, a.says(1, 0, 0)())
	})
}

func (r *replica) silent(address string) (out bool) {
	r.book.mu.RLock()
	defer r.book.mu.RUnlock()
	for p := range r.book.remotes {
		out = out || p.address == address && p.silent
	}
	return out
}

func (r *replica) turn(address string) (out int) {
	r.book.mu.RLock()
	defer r.book.mu.RUnlock()
	for p := range r.book.remotes {
		if p.address == address {
			out = p.turn
		}
	}
	return out
}
