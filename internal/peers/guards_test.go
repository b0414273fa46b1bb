// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestGuardsOfAllReplicasCount: what guards a pod is known by each pod, whichever replica the proxy of its node is
// connected to.
func TestGuardsOfAllReplicasCount(t *testing.T) {
	a, b := pair(t, long(quick))
	guard := func(pod, node string) xds.Key {
		return catalogue.NodeScope(node).Key(xds.TypeExtension, names.PodAuthorization("shop", pod))
	}
	here, there := guard("p0", "n0"), guard("p1", "n1")
	let := make(chan struct{})
	a.nodeOf("n0", here.TypeURL, here.Name, let)
	b.nodeOf("n1", there.TypeURL, there.Name, let)
	is := func(k xds.Key, want xds.AckState) func() bool {
		return func() bool {
			for _, r := range []*replica{a, b} {
				s := r.book.State(k)
				if s.Version == "" || len(s.Proxies) != 1 || s.Proxies[0].State != want || s.Proxies[0].Version == "" {
					return false
				}
			}
			return true
		}
	}
	both := func(want xds.AckState) func() bool {
		return func() bool { return is(here, want)() && is(there, want)() }
	}
	eventually.True(t, "both replicas know of both pods", both(xds.Acked))
	require.Empty(t, a.book.State(guard("p0", "n1")).Proxies, "each node has its own")
	a.edit("2")
	b.edit("2")
	eventually.True(t, "both run on with the older version", both(xds.Pending))
	close(let)
	eventually.True(t, "both have the new one", both(xds.Acked))
}

// TestWhatAGuardedPodCosts of what one replica knows of another's: bytes that a cluster has thousands of.
func TestWhatAGuardedPodCosts(t *testing.T) {
	const pods, podsOfNode, most = 5000, 100, 640
	heap := func() uint64 {
		var m runtime.MemStats
		for range 4 { // package unique forgets what is unused a round later, or two
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	kept := newEntries()
	for n := range pods {
		node := fmt.Sprint("worker-", n/podsOfNode, ".example.org")
		name := names.PodAuthorization("bookshop", fmt.Sprint("reviews-7c5ddbdf54-", n))
		e := entryOf(
			catalogue.NodeScope(node).Key(xds.TypeExtension, name),
			xds.ResourceState{Version: fmt.Sprintf("%032d", n), Proxies: []xds.ProxyAck{{
				Proxy: xds.Proxy{Pod: "fairway-system/fairway-node-" + node, PodUID: node, Node: node}, State: xds.Acked,
				Version: fmt.Sprintf("%032d", n),
			}}})
		e.compact()
		require.True(t, kept.put(e))
	}
	cost := (heap() - before) / pods
	t.Logf("%d bytes a pod", cost)
	require.LessOrEqual(t, cost, uint64(most))
	runtime.KeepAlive(kept)
}
