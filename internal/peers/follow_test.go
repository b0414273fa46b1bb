// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// pending is a proxy that has acknowledged nothing.
var pending = proxy{Pod: "shop/one", PodUID: "1", State: xds.Pending}

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
				{Scope: scope, TypeURL: xds.TypeListener, Name: names.ListenerMTLS, Proxies: []proxy{pending}},
				{Scope: "node/n", TypeURL: xds.TypeRoute, Name: "x", Proxies: []proxy{pending}},
			}},
			line{Complete: true})
		<-r.Context().Done() // says nothing more
		once.Do(func() { close(ended) })
	})
	tm := long(quick)
	a := newReplica(t, ca, tm)
	a.book.SetPeers([]string{addr})
	eventually.True(t, "followed", func() bool { return connected(a.book) == 1 })
	require.Empty(t, a.book.State(xds.Scope("node/n").Key(xds.TypeRoute, "x")).Proxies, "what no status needs is not kept")
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
	one := entry{Scope: scope, TypeURL: xds.TypeListener, Name: names.ListenerMTLS, Proxies: []proxy{pending}}
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
	a := newReplica(t, ca, long(times{
		heartbeat: time.Hour, age: time.Hour, retry: time.Millisecond, retryMax: time.Millisecond,
	}))
	a.book.SetPeers([]string{addr})
	eventually.True(t, "the third attempt", func() bool { mu.Lock(); defer mu.Unlock(); return calls == 3 })
	require.Equal(t, 1, connected(a.book))
	close(third)
	eventually.True(t, "the whole snapshot", func() bool { return connected(a.book) == 2 })
}
