// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

func TestStreamsThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		scope Scope
		pod   string
		send  *discoveryv3.DeltaDiscoveryRequest
		code  codes.Code
		text  string
	}{
		"no token": {scope: testScope, code: codes.Unauthenticated, text: "send a token"},
		"no scope": {pod: "p", code: codes.PermissionDenied, text: "only waypoints and node proxies"},
		"no type": {
			scope: testScope, pod: "p", send: &discoveryv3.DeltaDiscoveryRequest{}, code: codes.InvalidArgument,
			text: "type_url",
		},
		"long name": {
			scope: testScope, pod: "p", send: request(TypeCluster, strings.Repeat("x", maxNameLength+1)),
			code: codes.InvalidArgument, text: "resource name",
		},
		"too many": {scope: testScope, pod: "p", send: request(TypeCluster, "a", "b", "c", "d", "e", "f", "g", "h", "i",
			"j", "k"), code: codes.ResourceExhausted, text: "more than 5"},
		"many versions": {
			scope: testScope, pod: "p", send: &discoveryv3.DeltaDiscoveryRequest{
				TypeUrl:                 TypeCluster,
				InitialResourceVersions: map[string]string{"a": "", "b": "", "c": "", "d": "", "e": "", "f": ""},
			},
			code: codes.ResourceExhausted, text: "exceed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.maxSubscriptions = 5 })
			c := f.connect(tc.scope, tc.pod)
			if tc.send != nil {
				c.send(tc.send)
			}
			err := <-c.err
			require.Equal(t, tc.code, status.Code(err))
			require.ErrorContains(t, err, tc.text)
			eventually.True(f.t, "no stream is left", func() bool {
				return len(f.server.Proxies()) == 0 && len(f.cache.Scopes()) == 0
			})
		})
	}
}

func TestRefusalsAreToldApart(t *testing.T) {
	require.Equal(t, "unauthenticated", refusedFor(errors.New("no token")))
	require.Equal(t, "forbidden", refusedFor(status.Error(codes.PermissionDenied, "an application")))
	require.Equal(t, "unavailable", refusedFor(status.Error(codes.Unavailable, "no API server")))
}

func request(typeURL string, names ...string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names}
}

func TestMaxStreamsAndTypes(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.MaxStreams = 1 })
	a := f.connect(testScope, "a")
	eventually.True(f.t, "first", func() bool { return len(f.server.Proxies()) == 1 })
	require.Equal(t, codes.ResourceExhausted, status.Code(<-f.connect(testScope, "b").err))
	for i := range maxTypes + 1 {
		a.subscribe(resource.APITypePrefix+fmt.Sprint("t", i), "x")
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(<-a.err))
}

func TestNewerStreamOfAPodTakesOver(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Supersede = true })
	old := f.connect(testScope, "p")
	eventually.True(f.t, "first", func() bool { return len(f.server.Proxies()) == 1 })
	f.connect(testScope, "p")
	require.Equal(t, codes.Aborted, status.Code(<-old.err))
	eventually.True(f.t, "one is left", func() bool { return len(f.server.Proxies()) == 1 })
}

func TestAStreamEndsWithItsPod(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Supersede = true })
	gone, other := f.connect(testScope, "gone"), f.connect(testScope, "other")
	eventually.True(f.t, "both", func() bool { return len(f.server.Proxies()) == 2 })
	f.server.Disconnect("gone")
	f.server.Disconnect("never seen")
	require.Equal(t, codes.PermissionDenied, status.Code(<-gone.err))
	eventually.True(f.t, "the other stays", func() bool { return len(f.server.Proxies()) == 1 })
	require.Empty(t, other.err)
}

func TestStreamsEndWithTheRightToThem(t *testing.T) {
	f := newFixture(t, nil)
	evicted, other := f.connect("waypoint/shop/a", "a"), f.connect("waypoint/shop-2/a", "b")
	eventually.True(f.t, "both", func() bool { return len(f.server.Proxies()) == 2 })
	f.server.Evict(func(s Scope) bool { return strings.HasPrefix(string(s), "waypoint/shop/") })
	require.Equal(t, codes.PermissionDenied, status.Code(<-evicted.err))
	eventually.True(f.t, "the other stays", func() bool { return len(f.server.Proxies()) == 1 })
	require.Empty(t, other.err)
}

// TestAStreamEndsOfAge: its proxy comes back with what it has, and is sent only what changed meanwhile.
func TestAStreamEndsOfAge(t *testing.T) {
	f := newFixture(t, func(o *Options) { refuseProbe(o); o.MaxAge = 100 * time.Millisecond })
	f.apply(cluster(t, "a", 1), cluster(t, "b", 1))
	f.ready(TypeCluster)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster)
	c.expect(TypeCluster, "a", "b")
	require.Equal(t, codes.Aborted, status.Code(<-c.err))
	f.apply(cluster(t, "b", 2))

	again := f.connect(testScope, "p")
	again.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: TypeCluster, InitialResourceVersions: c.has[TypeCluster]})
	again.expect(TypeCluster, "b")
	require.Equal(t, codes.Aborted, status.Code(<-again.err))
}

func TestRefusedSubscriptionsAreAnsweredAsAbsent(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Admit = func(_ Proxy, id ID) bool { return id.Name == "mine" }
	})
	f.apply(cluster(t, "mine", 1), cluster(t, "theirs", 1))
	f.ready(TypeCluster, TypeListener)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster, "mine", "theirs")
	c.expect(TypeCluster, "mine", "-theirs")
	c.subscribe(TypeListener)
	c.expect(TypeListener)
	f.apply(cluster(t, "theirs", 2), cluster(t, "mine", 2))
	c.expect(TypeCluster, "mine")
}

// TestNamesBeyondTheLimitDontExist: what the client has goes on, and there is room again once it gives names up.
func TestNamesBeyondTheLimitDontExist(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.maxSubscriptions = 2 })
	f.apply(cluster(t, "a", 1), cluster(t, "b", 1), cluster(t, "c", 1))
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster, "a", "b")
	c.expect(TypeCluster, "a", "b")
	for range 3 { // more often than there is room for
		c.subscribe(TypeCluster, "c", "d")
		c.expect(TypeCluster, "-c", "-d")
	}
	f.apply(cluster(t, "c", 2))
	f.apply(cluster(t, "a", 2))
	c.expect(TypeCluster, "a")
	p := f.server.Proxies()
	require.Equal(t, []string{"a", "b"}, p[0].Types[TypeCluster].Names)
	require.Len(t, p[0].Types[TypeCluster].Resources, 2, "nothing is kept of the others")
	c.unsubscribe(TypeCluster, "b")
	c.subscribe(TypeCluster, "c")
	c.expect(TypeCluster, "c")
}

func TestScopesAreApart(t *testing.T) {
	f := newFixture(t, refuseProbe)
	f.apply(cluster(t, "a", 1))
	f.ready(TypeCluster)
	c := f.connect("node/n1", "p")
	c.subscribe(TypeCluster)
	c.subscribe(TypeCluster, "a")
	c.quiet()
}

func TestInterest(t *testing.T) {
	var mu sync.Mutex
	var got []Interest
	f := newFixture(t, func(o *Options) {
		o.OnInterest = func(i Interest) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, i)
		}
	})
	seen := func(i Interest) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(got, i)
		}
	}
	name := func(n string, wanted, lost bool) Interest {
		return Interest{Key: testScope.Key(TypeEndpoint, n), Wanted: wanted, Disconnected: lost}
	}
	a, b := f.connect(testScope, "a"), f.connect(testScope, "b")
	a.subscribe(TypeEndpoint, "x", "*")
	eventually.True(f.t, "x wanted", seen(name("x", true, false)))
	eventually.True(f.t, "* wanted", seen(name("*", true, false)))
	b.subscribe(TypeEndpoint, "x", "y")
	eventually.True(f.t, "y wanted", seen(name("y", true, false)))
	b.unsubscribe(TypeEndpoint, "y")
	eventually.True(f.t, "y unwanted", seen(name("y", false, false)))
	a.cancel()
	eventually.True(f.t, "* lost", seen(name("*", false, true)))
	require.False(t, seen(name("x", false, true))(), "b still wants it")
	b.cancel()
	eventually.True(f.t, "x lost", seen(name("x", false, true)))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 6)
}

func TestBook(t *testing.T) {
	reg := prometheus.NewRegistry()
	var mu sync.Mutex
	changes := map[string]int{}
	var acks []Ack
	f := newFixture(t, func(o *Options) {
		o.Registerer = reg
		o.OnAck = func(a Ack) { mu.Lock(); defer mu.Unlock(); acks = append(acks, a) }
	})
	f.server.OnChange(func(keys ...Key) {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			changes[typeLabel(k.TypeURL)+" "+k.Name]++
		}
	})
	r1 := route(t, "r", 1)
	f.apply(r1)
	a, b := f.connect(testScope, "a"), f.connect(testScope, "b")
	a.subscribe(TypeRoute, "r")
	a.expect(TypeRoute, "r")
	b.subscribe(TypeRoute, "r")
	b.recv()
	state := func() string {
		out := f.server.State(testScope.Key(TypeRoute, "r"))
		var s []string
		for _, p := range out.Proxies {
			s = append(s, p.Proxy.Pod+" "+string(p.State)+" "+p.Error)
		}
		return strings.Join(s, ", ")
	}
	eventually.True(f.t, "a acked", func() bool { return state() == "a Acked , b Pending " })
	r2 := route(t, "r", 2)
	f.apply(r2)
	require.Equal(t, "a Pending , b Pending ", state())
	require.Equal(t, r2.Version(), f.server.State(testScope.Key(TypeRoute, "r")).Version)
	a.nack(a.recv(), "goo.gle/debugonly  bad\nroute")
	eventually.True(f.t, "a rejected", func() bool { return state() == "a Rejected bad route, b Pending " })
	require.Equal(t, r1.Version(), f.server.State(testScope.Key(TypeRoute, "r")).Proxies[0].Version, "the last good one")
	eventually.True(f.t, "change told", func() bool { mu.Lock(); defer mu.Unlock(); return changes["rds r"] > 0 })
	a.cancel()
	eventually.True(f.t, "a left", func() bool { return state() == "b Pending " })
	mu.Lock()
	require.Equal(t, []string{"", "bad route"}, []string{acks[0].Error, acks[1].Error})
	mu.Unlock()

	families, err := reg.Gather()
	require.NoError(t, err)
	var names []string
	for _, m := range families {
		names = append(names, m.GetName())
	}
	require.Subset(t, names, []string{
		"fairway_xds_connected_proxies", "fairway_xds_responses_total",
		"fairway_xds_nacks_total", "fairway_xds_sent_bytes_total", "fairway_xds_push_seconds",
	})
}

func TestOversizedResponseIsSplit(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.maxResponseBytes = 100 })
	for i := range 20 {
		f.apply(cluster(t, fmt.Sprintf("c%02d", i), 1))
	}
	f.ready(TypeCluster)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster)
	responses := 0
	for ; len(c.has[TypeCluster]) < 20; responses++ {
		c.answer(c.recv())
	}
	require.Greater(t, responses, 1)
}

func TestDropLeavesProxiesAlone(t *testing.T) {
	f := newFixture(t, refuseProbe)
	f.apply(cluster(t, "a", 1))
	f.ready(TypeCluster)
	c := f.connect(testScope, "p")
	c.subscribe(TypeCluster)
	c.expect(TypeCluster, "a")
	f.cache.Drop(testScope)
	c.quiet()
	f.apply(cluster(t, "b", 1))
	c.quiet()
	f.ready(TypeCluster)
	c.expect(TypeCluster, "b")
	c.expect(TypeCluster, "-a")
}

// FuzzRequests feeds a stream arbitrary requests: it must neither panic nor hang, and leave nothing behind.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte("subscribe, unsubscribe, ack and nack in any order"))
	f.Fuzz(fuzzOne)
}

// fuzzOne plays four bytes per request: type, name, what to do, and with what.
func fuzzOne(t *testing.T, data []byte) {
	cache := NewCache()
	srv := NewServer(Options{Cache: cache, maxSubscriptions: 20, maxResponseBytes: 40})
	st, err := srv.admit(Proxy{Scope: testScope, Pod: "p"}, func(error) {})
	require.NoError(t, err)
	types := []string{TypeCluster, TypeEndpoint, TypeListener, TypeRoute, TypeSecret, "", resource.APITypePrefix + "x"}
	names := []string{"a", "b", "c", "*", "", "\xff"}
	var nonce string
	for len(data) >= 4 {
		u, n := types[int(data[0])%len(types)], names[int(data[1])%len(names)]
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: u}
		switch data[2] % 7 {
		case 0:
			req.ResourceNamesSubscribe = []string{n, names[int(data[3])%len(names)]}
		case 1:
			req.ResourceNamesUnsubscribe = []string{n}
		case 2:
			req.ResponseNonce = nonce
		case 3:
			req.ResponseNonce, req.ErrorDetail = nonce, errorDetail(string(data[3:4]))
		case 4:
			req.InitialResourceVersions = map[string]string{n: string(data[3:4])}
		case 5:
			packed := cluster(t, "x", int(data[3])).Any()
			packed.TypeUrl = u
			if r, err := NewRawResource(n, "", packed); err == nil {
				cache.Apply(testScope, []Update{Set(r)})
			}
		case 6:
			cache.Ready(testScope, u)
			cache.Apply(testScope, []Update{Gone(ID{u, n})})
		}
		data = data[4:]
		st.absorb()
		if st.handle(req) != nil {
			break
		}
		for range 100 {
			resp, _ := st.next()
			if resp == nil {
				break
			}
			nonce = resp.GetNonce()
		}
		st.snapshot()
	}
	srv.dismiss(st)
	cache.Drop(testScope)
	require.Empty(t, cache.Scopes())
}

// BenchmarkApply measures a change that 100 streams subscribe to, until all of them are marked; a million other names
// don't matter.
func BenchmarkApply(b *testing.B) {
	for _, streams := range []int{1, 100} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			cache := NewCache()
			srv := NewServer(Options{Cache: cache})
			for i := range streams {
				st, err := srv.admit(Proxy{Scope: testScope, Pod: fmt.Sprint(i)}, func(error) {})
				require.NoError(b, err)
				require.NoError(b, st.handle(request(TypeEndpoint, "a")))
			}
			versions := []*Resource{endpoints(b, "a", 1), endpoints(b, "a", 2)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				cache.Apply(testScope, []Update{Set(versions[i%2])})
			}
		})
	}
}

// BenchmarkFanOut measures a change until 100 connected clients have ACKed it.
func BenchmarkFanOut(b *testing.B) {
	const streams = 100
	f := newFixture(b, nil)
	versions := []*Resource{endpoints(b, "a", 1), endpoints(b, "a", 2)}
	f.apply(versions[0])
	acked := make(chan struct{}, streams)
	for i := range streams {
		c := f.connect(testScope, fmt.Sprint(i))
		c.subscribe(TypeEndpoint, "a")
		go func() {
			for r := range c.in {
				if c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}) != nil {
					return
				}
				acked <- struct{}{}
			}
		}()
	}
	for range streams {
		<-acked
	}
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		f.apply(versions[i%2])
		for range streams {
			<-acked
		}
	}
}
