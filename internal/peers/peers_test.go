// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func TestProxiesOfAllReplicasCount(t *testing.T) {
	a, b := pair(t, long(quick))
	var mu sync.Mutex
	told := map[key]bool{}
	cancel := a.book.OnChange(func(scope, typeURL, name string) {
		mu.Lock()
		defer mu.Unlock()
		told[key{scope, typeURL, name}] = true
	})
	defer cancel()
	// The first replica has no proxy yet and must derive the route only to know its version.
	b.proxy("one", "")
	eventually(t, "acknowledged elsewhere", a.says(1, 0, 0))
	eventually(t, "listeners hear of changes elsewhere", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told[key{scope, xds.TypeRoute, route}]
	})
	a.proxy("two", "")
	b.proxy("three", "")
	for _, r := range []*replica{a, b} {
		eventually(t, "all acknowledged", r.says(3, 0, 0))
		eventually(t, "all connected", func() bool { return connected(r.book) == 3 })
	}
}

func TestNodesOfAllReplicasMustSwitch(t *testing.T) {
	const vip = "10.96.0.10:80"
	a, b := pair(t, long(quick))
	switched := func(r *replica, proxies int) func() bool {
		return func() bool {
			s := r.book.State(names.AllNodesScope, xds.TypeCluster, vip)
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
	eventually(t, "some of the others are told of", switched(a, maxTold))
	a.node("a", vip, quickly)
	eventually(t, "and all of its own", switched(a, maxTold+1))
	eventually(t, "all nodes, and one elsewhere", switched(b, maxTold+4))

	a.edit("2")
	eventually(t, "its own has switched", func() bool {
		s := a.server.State(names.AllNodesScope, xds.TypeCluster, vip)
		return len(s.Proxies) == 1 && s.Settled()
	})
	require.False(t, switched(a, maxTold+1)(), "the other replica has not seen the edit")
	b.edit("2")
	eventually(t, "one node is behind, and among those that are told of", func() bool {
		s := a.book.State(names.AllNodesScope, xds.TypeCluster, vip)
		return slices.ContainsFunc(s.Proxies, func(p xds.ProxyAck) bool { return p.Proxy.Pod == "shop/slow" && p.State == xds.Pending }) &&
			slices.ContainsFunc(s.Proxies, func(p xds.ProxyAck) bool { return p.Proxy.Pod == "shop/b0" && p.State == xds.Acked })
	})
	close(slow)
	eventually(t, "all have switched", switched(a, maxTold+1))
}

func TestOnlyTheVersionThatIsCurrentHereCounts(t *testing.T) {
	a, b := pair(t, long(quick))
	b.proxy("one", "")
	eventually(t, "acknowledged", a.says(1, 0, 0))
	a.edit("2")
	eventually(t, "the other replica has not seen the edit", a.says(0, 1, 0))
	b.edit("2")
	eventually(t, "acknowledged", a.says(1, 0, 0))
}

func TestRejections(t *testing.T) {
	a, b := pair(t, long(quick))
	b.proxy("one", "no such cluster")
	eventually(t, "rejected", a.says(0, 0, 1))
	assert.Equal(t, "no such cluster", a.book.State(scope, xds.TypeRoute, route).Rejection())
	a.edit("2")
	eventually(t, "a rejection of another version is none of this one", a.says(0, 1, 0))
	b.edit("2")
	eventually(t, "rejected", a.says(0, 0, 1))
}

func TestAProxyThatMovesCountsOnce(t *testing.T) {
	a, b := pair(t, long(quick))
	left := b.proxy("one", "")
	eventually(t, "acknowledged", a.says(1, 0, 0))
	a.proxy("one", "")
	eventually(t, "connected here", func() bool { return len(a.server.Proxies()) == 1 })
	require.True(t, a.says(1, 0, 0)())
	left()
	eventually(t, "gone there", func() bool { return len(b.server.Proxies()) == 0 })
	eventually(t, "still acknowledged", b.says(1, 0, 0))
	eventually(t, "still acknowledged", a.says(1, 0, 0))
	require.Equal(t, 1, connected(a.book))
}

func TestAReplicaThatGoesAway(t *testing.T) {
	t.Run("its proxies stay for the time of grace", func(t *testing.T) {
		a, b := pair(t, long(quick))
		b.proxy("one", "")
		eventually(t, "acknowledged", a.says(1, 0, 0))
		b.stop()
		eventually(t, "silent", func() bool { return a.silent(b.addr) })
		require.True(t, a.says(1, 0, 0)())
	})
	t.Run("and go then", func(t *testing.T) {
		a, b := pair(t, quick)
		b.proxy("one", "")
		eventually(t, "acknowledged", a.says(1, 0, 0))
		b.stop()
		eventually(t, "gone", a.says(0, 0, 0))
		require.Zero(t, connected(a.book))
		k := key{scope, xds.TypeRoute, route}
		eventually(t, "no longer derived for them", func() bool { return !a.wants(k) })
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, i := range a.left {
			assert.True(t, i.Disconnected, "%v may come back", i)
		}
	})
	t.Run("or is no replica any more", func(t *testing.T) {
		a, b := pair(t, quick)
		b.proxy("one", "")
		eventually(t, "acknowledged", a.says(1, 0, 0))
		a.book.SetPeers(nil)
		eventually(t, "gone", a.says(0, 0, 0))
		eventually(t, "nothing left of it", func() bool {
			a.book.mu.RLock()
			defer a.book.mu.RUnlock()
			return len(a.book.remotes) == 0
		})
		a.book.SetPeers([]string{b.addr})
		eventually(t, "back", a.says(1, 0, 0))
	})
	t.Run("a feed ends by age and goes on without a gap", func(t *testing.T) {
		tm := long(quick)
		tm.age = 20 * time.Millisecond
		a, b := pair(t, tm)
		b.proxy("one", "")
		eventually(t, "acknowledged", a.says(1, 0, 0))
		eventually(t, "ended", func() bool { return !a.says(1, 0, 0)() || a.turn(b.addr) > 4 })
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

func TestAReplicaDoesNotFollowItself(t *testing.T) {
	a := newReplica(t, newAuthority(t), long(quick))
	_, err := a.book.listen(t.Context(), a.book.newClient(), a.book.join(a.addr))
	require.ErrorIs(t, err, errSelf)
}

func (r *replica) followers() int {
	r.book.feed.mu.Lock()
	defer r.book.feed.mu.Unlock()
	return len(r.book.feed.followers)
}

func TestNothingButAReplicaMayRead(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	a := newReplica(t, ca, long(quick))
	get := func(cfg *tls.Config) (*http.Response, error) {
		c := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		return c.Get("https://" + a.addr + path)
	}
	operator := func(a *identity.Authority) *tls.Config {
		return a.MutualConfig(names.SystemNamespace, names.OperatorServiceAccount)
	}
	old := operator(ca)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	anonymous := operator(ca)
	anonymous.GetClientCertificate = nil
	for name, cfg := range map[string]*tls.Config{
		"another service account": ca.MutualConfig(names.SystemNamespace, names.NodeServiceAccount),
		"another namespace":       ca.MutualConfig("shop", names.OperatorServiceAccount),
		"another CA":              forge(operator(other)),
		"no certificate":          anonymous,
		"TLS 1.2":                 old,
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := get(forge(cfg))
			if err == nil {
				_ = resp.Body.Close()
			}
			require.Error(t, err)
			assert.Contains(t, err.Error(), "tls: ", "refused by the server")
		})
	}
	require.Zero(t, a.followers())
	resp, err := get(operator(ca))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// forge makes a client that trusts any server, so that the server is what refuses it.
func forge(cfg *tls.Config) *tls.Config {
	cfg.VerifyConnection = nil
	return cfg
}

func TestNoOneButAReplicaIsFollowed(t *testing.T) {
	ca := newAuthority(t)
	for name, cfg := range map[string]*tls.Config{
		"another service account": ca.MutualConfig("shop", "cart"),
		"another CA":              newAuthority(t).MutualConfig(names.SystemNamespace, names.OperatorServiceAccount),
	} {
		t.Run(name, func(t *testing.T) {
			served := make(chan struct{}, 1)
			refused := make(chan struct{}, 1)
			addr := serveTLS(t, &http.Server{
				TLSConfig: forge(cfg.Clone()), ErrorLog: newSignal(refused),
				Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served <- struct{}{} }),
			})
			a := newReplica(t, ca, long(quick))
			a.book.SetPeers([]string{addr})
			select {
			case <-refused:
			case <-served:
				t.Fatal("the request was sent to a stranger")
			case <-time.After(patience):
				t.Fatal("no attempt")
			}
		})
	}
}

// impostor is a replica that says what a test wants.
func impostor(t *testing.T, ca *identity.Authority, say func(w http.ResponseWriter, r *http.Request)) string {
	t.Helper()
	return serveTLS(t, &http.Server{
		Handler: http.HandlerFunc(say), ErrorLog: newSignal(nil),
		TLSConfig: ca.MutualConfig(names.SystemNamespace, names.OperatorServiceAccount),
	})
}

func serveTLS(t *testing.T, s *http.Server) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = s.Close() })
	return ln.Addr().String()
}

func encode(w http.ResponseWriter, lines ...line) {
	enc := json.NewEncoder(w)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return // the follower has given up
		}
	}
	w.(http.Flusher).Flush()
}

func TestAReplicaThatHangsIsGivenUp(t *testing.T) {
	ca := newAuthority(t)
	var once sync.Once
	ended := make(chan struct{})
	addr := impostor(t, ca, func(w http.ResponseWriter, r *http.Request) {
		encode(w, line{Replica: "x"},
			line{Entries: []entry{
				{Scope: scope, TypeURL: xds.TypeListener, Name: names.ListenerHBONE, Proxies: []proxy{{Pod: "shop/one", PodUID: "1", State: xds.Pending}}},
				{Scope: "node/n", TypeURL: xds.TypeRoute, Name: "x", Proxies: []proxy{{Pod: "shop/one", PodUID: "1", State: xds.Pending}}},
			}},
			line{Complete: true})
		<-r.Context().Done() // says nothing more
		once.Do(func() { close(ended) })
	})
	tm := long(quick)
	a := newReplica(t, ca, tm)
	a.book.SetPeers([]string{addr})
	eventually(t, "followed", func() bool { return connected(a.book) == 1 })
	require.Empty(t, a.book.State("node/n", xds.TypeRoute, "x").Proxies, "what no status needs is not kept")
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the silent feed was not ended")
	}
	require.Equal(t, 1, connected(a.book), "within the time of grace")
}

func TestASnapshotThatBreaksOffChangesNothing(t *testing.T) {
	ca := newAuthority(t)
	var mu sync.Mutex
	calls := 0
	one := entry{Scope: scope, TypeURL: xds.TypeListener, Name: names.ListenerHBONE, Proxies: []proxy{{Pod: "shop/one", PodUID: "1", State: xds.Pending}}}
	two := one
	two.Proxies = append([]proxy{{Pod: "shop/two", PodUID: "2", State: xds.Pending}}, one.Proxies...)
	third := make(chan struct{})
	addr := impostor(t, ca, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		calls++
		n := calls
		mu.Unlock()
		switch n {
		case 1:
			encode(w, line{Replica: "x"}, line{Entries: []entry{one}}, line{Complete: true})
		case 2:
			encode(w, line{Replica: "x"}, line{Entries: []entry{two}})
			_, _ = w.Write([]byte("{garbage\n"))
		default:
			<-third
			encode(w, line{Replica: "x"}, line{Entries: []entry{two}}, line{Complete: true})
			<-r.Context().Done()
		}
	})
	a := newReplica(t, ca, long(times{heartbeat: time.Hour, age: time.Hour, retry: time.Millisecond, retryMax: time.Millisecond}))
	a.book.SetPeers([]string{addr})
	eventually(t, "the third attempt", func() bool { mu.Lock(); defer mu.Unlock(); return calls == 3 })
	require.Equal(t, 1, connected(a.book))
	close(third)
	eventually(t, "the whole snapshot", func() bool { return connected(a.book) == 2 })
}

func TestTooManyFollowersAreTurnedAway(t *testing.T) {
	f := newFeed(nil, "x", quick, testLog(t))
	for range maxFollowers {
		require.NotNil(t, f.join())
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestTheFeedTellsWhatStatusesNeedOnly(t *testing.T) {
	local := &fixed{states: map[key]xds.ResourceState{}}
	acked := xds.ProxyAck{Proxy: xds.Proxy{Pod: "p", PodUID: "u"}, State: xds.Acked, Version: "1"}
	nacked := xds.ProxyAck{Proxy: xds.Proxy{Pod: "q", PodUID: "v"}, State: xds.Rejected, Error: strings.Repeat("x", 5000)}
	keys := map[key]struct{}{}
	for _, k := range []key{
		{scope, xds.TypeCluster, "quiet"},
		{scope, xds.TypeCluster, "bad"},
		{scope, xds.TypeRoute, "r"},
		{scope, xds.TypeListener, "l"},
		listenerOf(scope),
	} {
		keys[k] = struct{}{}
		local.states[k] = xds.ResourceState{Version: "1", Proxies: []xds.ProxyAck{acked}}
	}
	bad := key{scope, xds.TypeCluster, "bad"}
	local.states[bad] = xds.ResourceState{Version: "1", Proxies: []xds.ProxyAck{acked, nacked}}
	f := newFeed(local, "x", quick, testLog(t))
	fo := f.join()
	got := sent(t, f, fo, keys)
	require.Len(t, got, 3)
	require.Len(t, got[bad].Proxies, 1)
	require.Len(t, got[bad].Proxies[0].Error, maxError)
	require.Contains(t, got, key{scope, xds.TypeRoute, "r"})
	require.Contains(t, got, listenerOf(scope))

	local.states[bad] = xds.ResourceState{Version: "2", Proxies: []xds.ProxyAck{acked}}
	got = sent(t, f, fo, map[key]struct{}{bad: {}})
	require.Contains(t, got, bad, "that it is over is told")
	require.Empty(t, got[bad].Proxies)
	require.Empty(t, sent(t, f, fo, map[key]struct{}{bad: {}}), "once")

	for _, k := range []key{{"node/n", xds.TypeRoute, "r"}, {scope, xds.TypeEndpoint, "e"}, {scope, xds.TypeListener, xds.Wildcard}} {
		f.changed(k.scope, k.typeURL, k.name)
	}
	require.Empty(t, fo.take())
	f.changed(scope, xds.TypeRoute, "r")
	f.changed(scope, xds.TypeRoute, "r")
	require.Len(t, fo.take(), 1)
}

func sent(t *testing.T, f *feed, fo *follower, keys map[key]struct{}) map[key]entry {
	t.Helper()
	var out strings.Builder
	require.NoError(t, f.send(json.NewEncoder(&out), fo, keys))
	got := map[key]entry{}
	for lines := bufio.NewScanner(strings.NewReader(out.String())); lines.Scan(); {
		var l line
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
		for _, e := range l.Entries {
			got[e.key()] = e
		}
	}
	return got
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name         string
		p            proxy
		theirs, here string
		want         xds.AckState
	}{
		{"runs it", proxy{State: xds.Acked, Runs: "1"}, "1", "1", xds.Acked},
		{"runs it, and the other replica is ahead", proxy{State: xds.Pending, Runs: "1"}, "2", "1", xds.Acked},
		{"runs what is old here", proxy{State: xds.Acked, Runs: "1"}, "1", "2", xds.Pending},
		{"not derived here yet", proxy{State: xds.Acked, Runs: "1"}, "1", "", xds.Pending},
		{"has nothing", proxy{State: xds.Pending}, "1", "1", xds.Pending},
		{"rejects it", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "2", xds.Rejected},
		{"rejects another", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "3", xds.Pending},
		{"rejects what is newer there", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "1", xds.Acked},
		{"knows that it does not exist", proxy{State: xds.Acked}, "", "", xds.Acked},
		{"has what does not exist here", proxy{State: xds.Acked, Runs: "1"}, "1", "", xds.Pending},
	} {
		t.Run(tc.name, func(t *testing.T) { assert.Equal(t, tc.want, tc.p.judge(scope, tc.theirs, tc.here).State) })
	}
}

func TestInterestsNeverTakeFromEachOther(t *testing.T) {
	k := key{scope, xds.TypeRoute, route}
	var got []xds.Interest
	n := newInterests(func(i xds.Interest) { got = append(got, i) })
	wanted := xds.Interest{Scope: scope, TypeURL: xds.TypeRoute, Name: route, Wanted: true}
	gone := wanted
	gone.Wanted = false
	left := gone
	left.Disconnected = true
	step := func(what string, f func(), want ...xds.Interest) {
		t.Helper()
		got = nil
		f()
		require.Equal(t, want, got, what)
	}
	step("first elsewhere", func() { n.add(k) }, wanted)
	step("second elsewhere", func() { n.add(k) })
	step("here too", func() { n.here(wanted) }, wanted)
	step("gone here", func() { n.here(gone) })
	step("one gone elsewhere", func() { n.remove(k, false) })
	step("all gone", func() { n.remove(k, true) }, left)
	step("here", func() { n.here(wanted) }, wanted)
	step("elsewhere", func() { n.add(k) })
	step("gone elsewhere", func() { n.remove(k, true) })
	step("gone here", func() { n.here(gone) }, gone)
	node := xds.Interest{Scope: "node/n", TypeURL: xds.TypeCluster, Name: "10.0.0.1:80"}
	step("what no status needs passes through", func() { n.here(node) }, node)
	require.Empty(t, n.local)
	require.Empty(t, n.remote)
}

func TestEntriesAreBounded(t *testing.T) {
	es := newEntries()
	e := entry{Scope: scope, TypeURL: xds.TypeRoute, Name: route, Proxies: make([]proxy, maxRecords/2)}
	require.True(t, es.put(e))
	require.True(t, es.put(e), "a replacement counts once")
	other := e
	other.Name = "other"
	require.False(t, es.put(other))
	e.Proxies = nil
	require.True(t, es.put(e))
	require.Zero(t, es.records)
	require.Empty(t, es.of)
}

func TestAddresses(t *testing.T) {
	pod := func(name string) *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Pod", Name: name} }
	slices := []discoveryv1.EndpointSlice{
		{ObjectMeta: metav1.ObjectMeta{Name: "4"}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, TargetRef: pod("me")},
			{Addresses: []string{"10.0.0.2"}, TargetRef: pod("b"), Conditions: discoveryv1.EndpointConditions{Ready: new(bool)}},
			{Addresses: []string{"10.0.0.3"}, TargetRef: pod("c")},
			{},
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: "6"}, AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"fd00::1"}, TargetRef: pod("me")},
			{Addresses: []string{"fd00::2"}, TargetRef: pod("b")},
			{Addresses: []string{"fd00::4"}},
		}},
		{AddressType: discoveryv1.AddressTypeFQDN, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"example.com"}}}},
	}
	require.Equal(t, []string{"10.0.0.2:15014", "10.0.0.3:15014", "[fd00::4]:15014"}, addressesOf(slices, "me"))
	require.Empty(t, addressesOf(nil, ""))
}
