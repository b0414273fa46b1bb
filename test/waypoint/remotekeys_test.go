// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
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

// told is what the operator is told of the one set of keys.
func (w *world) told(t testing.TB) counts.Count {
	t.Helper()
	all := w.kept.Take(true)
	require.Len(t, all, 1)
	return all[0]
}

// keysFailed is how often the agent asked for keys in vain.
func (w *world) keysFailed() (n float64) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "fairway_agent_key_fetches_total" && m.GetLabel()[0].GetValue() == "failed" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
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
	remote := policy.Tokens.Providers[0].Remote
	source := names.KeySource(policy.Policy.Namespace, names.RequestsTo(login.Namespace, login.Service, login.Port, false),
		remote.URI, remote.CacheFor, remote.Timeout)
	missing := s.told(t)
	require.Equal(t, counts.Series{Kind: counts.KeysMissing, Destination: source}, missing.Series)
	require.Equal(t, "the answer is 503 Service Unavailable", missing.Why)

	server.start()
	eventually.True(t, "keys", answers(i, http.StatusOK))
	require.Equal(t, counts.KeysFetched, s.told(t).Kind)
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
		failed := s.keysFailed()
		eventually.True(t, "asked in vain", func() bool {
			require.Equal(t, http.StatusOK, asks(next).status)
			return s.keysFailed() > failed
		})
		require.Equal(t, counts.KeysStale, s.told(t).Kind)
		server.rotate(keys(t, next))
		eventually.True(t, "keys again", func() bool { return s.told(t).Kind == counts.KeysFetched })
	}
	server.stop()
	failed := s.keysFailed()
	eventually.True(t, "keys that are older than they may be", func() bool {
		require.Equal(t, http.StatusOK, asks(next).status)
		return s.keysFailed() > failed
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

// TestEditsOfPoliciesFetchNoKeys: while the server of keys is away, somebody edits a policy of another namespace, one
// of another Service, and the policy itself. All tokens stay good all the while.
func TestEditsOfPoliciesFetchNoKeys(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	own, server := s.byRemoteKeys(i, time.Hour)
	server.start()
	other, foreign := own, own
	other.Policy.Name = "other"
	foreign.Policy = model.PolicyName{Namespace: "front", Name: "theirs"}
	dialled := s.authenticate([]model.Guard{{}}, own)
	all := map[string]*model.Authentication{"of the Service": &own, "of another": &other, "of others": &foreign}
	apply := func() {
		u := tokens(t, model.Authentications{
			Policies: []model.Authentication{foreign, other, own},
			Sets:     [][]model.PolicyName{{foreign.Policy}, {other.Policy}, {own.Policy}},
		})
		s.apply(u...)
		s.acknowledged(u...)
	}
	apply()
	c := s.caller(clientID).client(t, dialled, nil)
	ask := func() reply { return withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)) }
	eventually.True(t, "keys", func() bool { return ask().status == http.StatusOK })
	server.stop()
	before := server.count()
	for name, p := range all {
		for n := range 3 {
			provider := p.Tokens.Providers[0]
			provider.Audiences = append(slices.Clone(provider.Audiences), fmt.Sprint(name, n))
			p.Tokens = &model.Tokens{Providers: []model.TokenProvider{provider}}
			apply()
			for range 5 {
				r := ask()
				require.Equal(t, http.StatusOK, r.status, "%s: %s", name, r.body)
			}
		}
	}
	require.Equal(t, before, server.count())
}

// TestKeysOverTLS: a server of keys is spoken TLS with as a BackendTLSPolicy says, wherever it is. Of one that proves
// to be somebody else no keys are taken.
func TestKeysOverTLS(t *testing.T) {
	authority, other := testca.New(t, "example.org"), testca.New(t, "example.org")
	for place, where := range map[string]bool{"in the mesh": true, "outside": false} {
		for name, tc := range map[string]struct {
			ca     *testca.CA
			status int
		}{"the right one": {authority, http.StatusOK}, "another": {other, http.StatusUnauthorized}} {
			t.Run(place+" "+name, func(t *testing.T) {
				s := newShop(t)
				i := newIssuer(t, "https://login.example", "one", jose.ES256)
				policy, plain := s.byRemoteKeys(i, time.Hour)
				policy.Tokens.Providers[0].Remote.TLS = true
				policy.Tokens.Providers[0].Remote.URI = "https://login.example/keys.json"
				address := netip.AddrPortFrom(s.address(), 8443)
				l, err := net.Listen("tcp", address.String())
				require.NoError(t, err)
				server := &http.Server{Handler: plain, ReadHeaderTimeout: patience, TLSConfig: &tls.Config{
					MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{tc.ca.IssueHost(secureHost)},
				}}
				go func() { _ = server.ServeTLS(l, "", "") }()
				t.Cleanup(func() { _ = server.Close() })
				endpoint := model.Endpoint{Address: address}
				if where {
					newPod(t, address, s.ca.Issue(appID), peer(s.ca, waypointID))
					endpoint.MTLS, endpoint.Identity = true, appID
				}
				s.secure(model.Upstream{ServicePort: login, Protocol: model.ProtocolHTTP, TLS: &model.BackendTLS{
					Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(authority.PEM()),
				}}, endpoint)
				c := s.caller(clientID).client(t, s.authenticate([]model.Guard{{}}, policy), nil)
				ask := func() int { return withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)).status }
				if tc.status == http.StatusOK {
					eventually.True(t, "keys", func() bool { return ask() == http.StatusOK })
					require.Equal(t, map[string]bool{"login.example/keys.json": true}, plain.hosts)
					return
				}
				eventually.True(t, "asked in vain", func() bool { return s.keysFailed() > 0 })
				require.Equal(t, tc.status, ask())
				require.Zero(t, plain.count())
			})
		}
	}
}

// TestUnknownKeyIsFetched: a token that is signed with a key that came after the last fetch is good within seconds,
// however long keys are kept.
func TestUnknownKeyIsFetched(t *testing.T) {
	s := newShop(t)
	first := newIssuer(t, "https://login.example", "one", jose.ES256)
	next := newIssuer(t, "https://login.example", "two", jose.ES256)
	policy, server := s.byRemoteKeys(first, time.Hour)
	server.start()
	c := s.caller(clientID).client(t, s.authenticate([]model.Guard{{}}, policy), nil)
	ask := func(i *issuer) int { return withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)).status }
	eventually.True(t, "keys", func() bool { return ask(first) == http.StatusOK })
	server.rotate(keys(t, first, next))
	eventually.True(t, "the next key", func() bool { return ask(next) == http.StatusOK })
	require.Equal(t, http.StatusOK, ask(first))

	// Refusals of gRPC have another status.
	last := newIssuer(t, "https://login.example", "three", jose.ES256)
	server.rotate(keys(t, first, next, last))
	refused := func() string {
		return withHeaders(t, c, "/", "Authorization: Bearer "+last.token(nil), "Content-Type: application/grpc").header.Get(
			"Grpc-Status")
	}
	require.Equal(t, "16", refused())
	eventually.True(t, "the next key, for gRPC alone", func() bool { return refused() == "" })
}
