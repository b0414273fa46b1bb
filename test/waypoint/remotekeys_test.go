// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

var login = model.ServicePort{Namespace: "keys", Service: "login", Port: 8080}

// keyServer serves keys at an address, and can be stopped.
type keyServer struct {
	t       testing.TB
	address netip.AddrPort
	server  *http.Server

	mu      sync.Mutex
	keys    string
	fetched int
	hosts   map[string]bool
}

func (k *keyServer) start() {
	k.t.Helper()
	l, err := net.Listen("tcp", k.address.String())
	require.NoError(k.t, err)
	k.server = &http.Server{Handler: k, ReadHeaderTimeout: patience}
	server := k.server
	go func() { _ = server.Serve(l) }()
	k.t.Cleanup(func() { _ = server.Close() })
}

func (k *keyServer) stop() { _ = k.server.Close() }

func (k *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetched++
	k.hosts[r.Host+r.URL.Path] = true
	_, _ = w.Write([]byte(k.keys))
}

func (k *keyServer) rotate(keys string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = keys
}

func (k *keyServer) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fetched
}

// byRemoteKeys is a policy whose keys are fetched, and where from.
func (s *shop) byRemoteKeys(i *issuer, cached time.Duration) (model.Authentication, *keyServer) {
	s.t.Helper()
	k := &keyServer{
		t: s.t, address: netip.AddrPortFrom(s.address(), 8080), keys: keys(s.t, i), hosts: map[string]bool{},
	}
	s.backend(login, model.ProtocolHTTP, model.Endpoint{Address: k.address})
	return byTokens("web", false, i.provider(s.t, func(p *model.TokenProvider) {
		p.Keys, p.Remote = "", &model.RemoteKeys{
			URI: "http://login.example/keys.json", Service: login, CacheFor: cached, Timeout: 5 * time.Second,
		}
	})), k
}

// TestRemoteKeys: without keys nobody gets in, and who has the token is told so; with keys, they hold until others
// come.
func TestRemoteKeys(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.RS256)
	policy, server := s.byRemoteKeys(i, time.Second)
	dialled := s.authenticate([]model.Guard{{}}, policy)
	c := s.caller(clientID).client(t, dialled, nil)
	asks := func(i *issuer) reply { return withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)) }
	answers := func(i *issuer, status int) func() bool { return func() bool { return asks(i).status == status } }

	r := asks(i)
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "Jwks remote fetch is failed")
	require.Equal(t, http.StatusUnauthorized, withHeaders(t, c, "/").status)

	server.start()
	eventually.True(t, "keys", answers(i, http.StatusOK))
	require.Equal(t, map[string]bool{"login.example/keys.json": true}, server.hosts)

	next := newIssuer(t, "https://login.example", "two", jose.ES256)
	require.Equal(t, http.StatusUnauthorized, asks(next).status)
	server.rotate(keys(t, i, next))
	eventually.True(t, "the next key", answers(next, http.StatusOK))
	require.Equal(t, http.StatusOK, asks(i).status)
	server.rotate(keys(t, next))
	eventually.True(t, "the old key is gone", answers(i, http.StatusUnauthorized))
	require.Equal(t, http.StatusOK, asks(next).status)

	// What isn't a set of keys changes nothing, nor does a server that is away.
	for _, nothing := range []string{"<html>", "{}", `{"keys": []}`} {
		server.rotate(nothing)
		for n := server.count(); server.count() < n+2; {
			require.Equal(t, http.StatusOK, asks(next).status)
		}
	}
	server.stop()
	failed := s.stats("jwks_fetch_failed")
	eventually.True(t, "keys that are older than they may be", func() bool {
		require.Equal(t, http.StatusOK, asks(next).status)
		return s.stats("jwks_fetch_failed") != failed
	})
	server.rotate(keys(t, i))
	server.start()
	eventually.True(t, "the first key again", answers(i, http.StatusOK))
}

// TestRoutesFetchNoKeys: tables come and go, and the keys that a proxy has stay.
func TestRoutesFetchNoKeys(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	policy, server := s.byRemoteKeys(i, time.Hour)
	server.start()
	guards := []model.Guard{{}}
	dialled := s.authenticate(guards, policy)
	c := s.caller(clientID).client(t, dialled, nil)
	eventually.True(t, "keys", func() bool { return server.count() > 0 })
	before := server.count()
	for _, path := range []string{"/a", "/b", "/c", "/"} {
		s.guard(guards, rule(below(path), nil, to(webV1, 1)))
	}
	for range 10 {
		require.Equal(t, http.StatusOK, withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)).status)
	}
	require.Equal(t, before, server.count())
	server.stop()
	s.guard(guards, rule(below("/"), nil, to(webV2, 1)))
	require.Equal(t, http.StatusOK, withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)).status)
}
