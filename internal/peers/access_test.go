// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

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

func TestTooManyFollowersAreTurnedAway(t *testing.T) {
	f := newFeed(nil, "x", quick, testLog(t))
	for range maxFollowers {
		require.NotNil(t, f.join())
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
}
