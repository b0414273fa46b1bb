// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// started returns a client that runs one cluster with endpoints, one listener and one route.
func started(t *testing.T) (*fixture, *client) {
	f := newFixture(t, refuseProbe)
	f.apply(edsCluster(t, "c1", 1*time.Second), endpoints(t, "eds/c1", 1), listener(t, "l1", 1), route(t, "r1", 1))
	f.ready(TypeCluster, TypeListener)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster)
	c.expect(TypeCluster, "c1")
	c.subscribe(TypeEndpoint, "eds/c1")
	c.expect(TypeEndpoint, "eds/c1")
	c.subscribe(TypeListener)
	c.expect(TypeListener, "l1")
	c.subscribe(TypeRoute, "r1")
	c.expect(TypeRoute, "r1")
	return f, c
}

func TestMakeBeforeBreak(t *testing.T) {
	f, c := started(t)
	f.cache.Apply(testScope, []Update{
		Set(route(t, "r1", 2)),
		Set(listener(t, "l1", 2)),
		Gone(ID{TypeCluster, "c1"}),
		Gone(ID{TypeEndpoint, "eds/c1"}),
		Set(edsCluster(t, "c2", 1*time.Second)),
		Set(endpoints(t, "eds/c2", 1)),
	})
	clusters := c.recv()
	require.Equal(t, describe(TypeCluster, []string{"c2"}), describe(clusters.GetTypeUrl(), contents(clusters)))
	c.subscribe(TypeEndpoint, "eds/c2")
	c.expect(TypeEndpoint, "eds/c2") // before the cluster's ACK, for which Envoy needs it
	c.quiet()
	c.ack(clusters)
	c.expect(TypeRoute, "r1")
	listeners := c.recv()
	require.Equal(t, describe(TypeListener, []string{"l1"}), describe(listeners.GetTypeUrl(), contents(listeners)))
	c.quiet() // the cluster is still in use
	c.ack(listeners)
	c.expect(TypeCluster, "-c1")
	c.expect(TypeEndpoint, "-eds/c1")
}

// TestAListenerWaitsForTheTablesOfItsPorts, for which Envoy asks only once a scope leads to them.
func TestAListenerWaitsForTheTablesOfItsPorts(t *testing.T) {
	f, c := started(t)
	f.ready(TypeScopedRoute)
	c.subscribe(TypeScopedRoute)
	c.ack(c.recv()) // there are none
	f.apply(scopedRoute(t, "r2"), route(t, "r2", 1), listener(t, "l1", 2))
	scopes := c.recv()
	require.Equal(t, describe(TypeScopedRoute, []string{"r2"}), describe(scopes.GetTypeUrl(), contents(scopes)))
	c.quiet()
	c.subscribe(TypeRoute, "r2")
	routes := c.recv()
	require.Equal(t, describe(TypeRoute, []string{"r2"}), describe(routes.GetTypeUrl(), contents(routes)))
	c.ack(scopes)
	c.quiet()
	c.ack(routes)
	c.expect(TypeListener, "l1")

	f.cache.Apply(testScope, []Update{
		Gone(ID{TypeScopedRoute, "r2"}), Gone(ID{TypeRoute, "r2"}),
		Set(listener(t, "l1", 3)),
	})
	listeners := c.recv()
	require.Equal(t, describe(TypeListener, []string{"l1"}), describe(listeners.GetTypeUrl(), contents(listeners)))
	c.quiet() // the listener leads there until it is replaced
	c.ack(listeners)
	c.expect(TypeScopedRoute, "-r2")
	c.expect(TypeRoute, "-r2")
}

func TestLaterChangesDontHoldUpARoute(t *testing.T) {
	f, c := started(t)
	f.apply(endpoints(t, "eds/c1", 2))
	inflight := c.recv()
	f.apply(route(t, "r1", 2))
	f.apply(endpoints(t, "eds/c1", 3))
	c.quiet()
	c.ack(inflight)
	next := []*discoveryv3.DeltaDiscoveryResponse{c.recv(), c.recv()}
	require.Equal(t, TypeEndpoint, next[0].GetTypeUrl())
	require.Equal(t, TypeRoute, next[1].GetTypeUrl(), "it doesn't wait for the endpoints that changed after it")
}

func TestChangesCoalesceWhileAResponseIsUnanswered(t *testing.T) {
	f, c := started(t)
	f.apply(route(t, "r1", 2))
	inflight := c.recv()
	f.apply(route(t, "r1", 3))
	last := route(t, "r1", 4)
	f.apply(last)
	c.quiet()
	c.ack(inflight)
	got := c.expect(TypeRoute, "r1")
	require.Equal(t, last.Version(), got.GetResources()[0].GetVersion())
	c.quiet()
	f.apply(route(t, "r1", 5))
	inflight = c.recv()
	f.apply(last)
	f.apply(route(t, "r1", 5))
	c.ack(inflight)
	c.quiet() // there and back is no change
}

func TestEndpointsFollowAReplacedCluster(t *testing.T) {
	f, c := started(t)
	f.apply(edsCluster(t, "c1", 2*time.Second))
	clusters := c.recv()
	require.Equal(t, describe(TypeCluster, []string{"c1"}), describe(clusters.GetTypeUrl(), contents(clusters)))
	c.expect(TypeEndpoint, "eds/c1")
	c.ack(clusters)
	c.quiet()
}

func TestReconnectSendsOnlyWhatDiffers(t *testing.T) {
	f, c := started(t)
	f.apply(listener(t, "l2", 1), route(t, "r2", 1))
	c.expect(TypeListener, "l2")
	has := c.has
	c.cancel()
	eventually.True(f.t, "gone from the book", func() bool { return len(f.server.Proxies()) == 0 })
	require.Empty(t, f.server.State(testScope.Key(TypeRoute, "r1")).Proxies)
	f.apply(listener(t, "l1", 2))
	f.remove(TypeListener, "l2")

	c = f.connect(testScope, "p")
	for _, r := range []struct {
		typeURL string
		names   []string
	}{{TypeCluster, nil}, {TypeEndpoint, []string{"eds/c1"}}, {TypeListener, nil}, {TypeRoute, []string{"r1"}}} {
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: r.typeURL, ResourceNamesSubscribe: r.names,
			InitialResourceVersions: has[r.typeURL],
		})
	}
	c.expect(TypeListener, "l1")
	c.expect(TypeListener, "-l2")
	c.quiet()
	require.Equal(t, Acked, f.server.State(testScope.Key(TypeRoute, "r1")).Proxies[0].State)
}

func TestEndpointsFollowAClusterReplacedWhileAway(t *testing.T) {
	f, c := started(t)
	has := c.has
	c.cancel()
	eventually.True(f.t, "gone", func() bool { return len(f.server.Proxies()) == 0 })
	f.apply(edsCluster(t, "c1", 2*time.Second))
	c = f.connect(testScope, "p")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: TypeCluster, InitialResourceVersions: has[TypeCluster]})
	clusters := c.recv()
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: TypeEndpoint, ResourceNamesSubscribe: []string{"eds/c1"},
		InitialResourceVersions: has[TypeEndpoint],
	})
	c.expect(TypeEndpoint, "eds/c1")
	c.ack(clusters)
	c.quiet()
}

func TestReconnectToAnEmptyServerRemovesNothing(t *testing.T) {
	f := newFixture(t, refuseProbe)
	c := f.connect(testScope, "p")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: TypeCluster, InitialResourceVersions: map[string]string{
		"a": "1", "b": "1",
	}})
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: TypeEndpoint, ResourceNamesSubscribe: []string{"a"},
		InitialResourceVersions: map[string]string{"a": "1"},
	})
	c.quiet()
	f.apply(cluster(t, "a", 1))
	c.quiet()
	f.ready(TypeCluster)
	c.expect(TypeCluster, "a")
	c.expect(TypeCluster, "-b")
	c.quiet()
}

func TestNamesBesideAWildcard(t *testing.T) {
	f := newFixture(t, refuseProbe)
	f.apply(cluster(t, "a", 1), cluster(t, "b", 1))
	f.ready(TypeCluster)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster)
	c.expect(TypeCluster, "a", "b")
	c.subscribe(TypeCluster, "a", "demand")
	c.expect(TypeCluster, "a") // who asks is answered
	f.apply(cluster(t, "demand", 1))
	c.expect(TypeCluster, "demand")
	c.unsubscribe(TypeCluster, "a", "absent")
	c.expect(TypeCluster, "a") // the wildcard still covers it
	f.remove(TypeCluster, "demand")
	c.expect(TypeCluster, "-demand")
	c.unsubscribe(TypeCluster, "demand")
	c.expect(TypeCluster, "-demand")
	c.unsubscribe(TypeCluster, "*")
	eventually.True(f.t, "wildcard left", func() bool { return !f.server.Proxies()[0].Types[TypeCluster].Wildcard })
	f.apply(cluster(t, "a", 2))
	c.quiet()
}

func TestOnDemandClustersWithoutAWildcard(t *testing.T) {
	f := newFixture(t, refuseProbe)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster, "10.96.0.9:80")
	c.quiet()
	f.apply(cluster(t, "10.96.0.9:80", 1))
	c.expect(TypeCluster, "10.96.0.9:80")
	f.apply(cluster(t, "10.96.0.10:80", 1))
	c.quiet()
	c.subscribe(TypeCluster, "10.0.0.1:1")
	eventually.True(f.t, "interest", func() bool {
		return f.cache.lookup(testScope).wanted(ID{TypeCluster, "10.0.0.1:1"})
	})
	f.remove(TypeCluster, "10.0.0.1:1")
	c.expect(TypeCluster, "-10.0.0.1:1")
	f.apply(cluster(t, "10.0.0.1:1", 1))
	c.expect(TypeCluster, "10.0.0.1:1")
}

// TestAClusterOutlastsTheTableThatNamedIt, for what is just being sent there: from the acknowledgement of the table on,
// and unless it comes back. Who asks for a cluster by name is told at once that it is gone.
func TestAClusterOutlastsTheTableThatNamedIt(t *testing.T) {
	const lingering = time.Hour
	cache := NewCache()
	srv := NewServer(Options{Cache: cache, Lingering: lingering})
	st, err := srv.admit(Proxy{Scope: testScope, Pod: "p"}, func(error) {})
	require.NoError(t, err)
	defer srv.dismiss(st)
	change := func(ups ...Update) {
		cache.Apply(testScope, ups)
		st.absorb()
	}
	sent := func(want string) {
		t.Helper()
		resp, r := st.next()
		require.NotNil(t, resp)
		require.Equal(t, want, describe(resp.GetTypeUrl(), contents(resp)))
		require.NoError(t, st.handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: r.nonce}))
	}
	quiet := func() {
		t.Helper()
		resp, _ := st.next()
		require.Nil(t, resp)
	}
	old, next := ID{TypeCluster, "old"}, ID{TypeCluster, "next"}
	change(Set(cluster(t, "old", 1)), Set(route(t, "r", 1)))
	cache.Ready(testScope, TypeCluster)
	require.NoError(t, st.handle(request(TypeCluster)))
	require.NoError(t, st.handle(request(TypeRoute, "r")))
	sent("envoy.config.cluster.v3.Cluster [old]")
	sent("envoy.config.route.v3.RouteConfiguration [r]")

	change(Set(cluster(t, "next", 1)), Set(route(t, "r", 2)), Gone(old))
	sent("envoy.config.cluster.v3.Cluster [next]")
	table, r := st.next()
	require.Equal(t, TypeRoute, table.GetTypeUrl())
	quiet()
	require.Nil(t, st.types[TypeCluster].held["old"].unused, "the table isn't acknowledged")
	require.NoError(t, st.handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: TypeRoute, ResponseNonce: r.nonce}))
	quiet()
	unused := func() *time.Time { return st.types[TypeCluster].held["old"].unused }
	require.Equal(t, unused().Add(lingering), st.overdue, "the stream wakes up then")
	change(Set(endpoints(t, "e", 1)), Set(route(t, "r", 3)))
	sent("envoy.config.route.v3.RouteConfiguration [r]")

	change(Set(cluster(t, "old", 1)))
	quiet()
	require.Nil(t, unused(), "it is back")
	change(Gone(old))
	quiet()
	*unused() = unused().Add(-lingering)
	sent("envoy.config.cluster.v3.Cluster [-old]")
	quiet()
	require.Zero(t, st.overdue)

	require.NoError(t, st.handle(request(TypeCluster, "next")))
	sent("envoy.config.cluster.v3.Cluster [next]")
	change(Gone(next))
	sent("envoy.config.cluster.v3.Cluster [-next]")
}

func TestAClusterThatNeverWarmsHoldsUpRoutesForAWhileOnly(t *testing.T) {
	cache := NewCache()
	srv := NewServer(Options{Cache: cache})
	st, err := srv.admit(Proxy{Scope: testScope, Pod: "p"}, func(error) {})
	require.NoError(t, err)
	cold, r := cluster(t, "cold", 1), route(t, "r", 1)
	cache.Apply(testScope, []Update{Set(cold), Set(r)})
	require.NoError(t, st.handle(request(TypeCluster, "cold")))
	require.NoError(t, st.handle(request(TypeRoute, "r")))
	resp, inflight := st.next()
	require.Equal(t, TypeCluster, resp.GetTypeUrl())
	resp, _ = st.next()
	require.Nil(t, resp)
	require.Equal(t, inflight.sentAt.Add(orderPatience), st.overdue, "the stream wakes up then")
	inflight.sentAt = inflight.sentAt.Add(-orderPatience)
	resp, _ = st.next()
	require.Equal(t, TypeRoute, resp.GetTypeUrl())
	srv.dismiss(st)
}
