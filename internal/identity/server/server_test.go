// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
	"github.com/fairway-mesh/fairway/internal/identity/server"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	serverName = "fairway-operator.fairway-system.svc"
	cart       = "spiffe://cluster.local/ns/shop/sa/cart"
	pay        = "spiffe://cluster.local/ns/shop/sa/pay"
)

// issuer is an authority that may be told to fail, or to take its time.
type issuer struct {
	*identity.Authority

	mu   sync.Mutex
	fail error
	hold chan struct{}
}

func (i *issuer) Sign(ctx context.Context, csr []byte, id string) (identity.Leaf, error) {
	i.mu.Lock()
	fail, hold := i.fail, i.hold
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	if fail != nil {
		return identity.Leaf{}, fail
	}
	return i.Authority.Sign(ctx, csr, id)
}

func (i *issuer) set(fail error, hold chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail, i.hold = fail, hold
}

// operator is a real HTTPS server over loopback with a stand-in for the API server.
type operator struct {
	*identitytest.Cluster
	authority *identity.Authority
	issuer    *issuer
	renewals  *identity.Renewals
	now       func() time.Time // of the renewals
	url       string
	client    *http.Client

	mu      sync.Mutex
	logs    strings.Builder
	metrics *prometheus.Registry
}

func (o *operator) logged() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.logs.String()
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{
		Cluster: identitytest.NewCluster(nil), authority: identity.NewAuthority(nil),
		metrics: prometheus.NewRegistry(),
	}
	o.issuer, o.now = &issuer{Authority: o.authority}, time.Now
	o.renewals = identity.NewRenewals(func() time.Time { return o.now() }, func() {})
	root, err := identity.NewRoot("cluster.local", identity.DefaultRootLifetime, time.Now())
	require.NoError(t, err)
	s, _ := identity.State{}.Step(identity.Observed{Signer: root, TrustDomain: "cluster.local", LeafLifetime: time.Hour},
		identity.DefaultPolicy, time.Now())
	o.authority.Update(s)
	o.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	o.Run(auth.Pod{Namespace: "shop", Name: "pay-1", UID: "p1", Node: "n2", ServiceAccount: "pay"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o.url = "https://" + ln.Addr().String()
	srv := &server.Server{
		Listener: ln,
		TLS:      o.authority.ServingConfig(names.SystemNamespace, names.OperatorServiceAccount, serverName),
		Issuer:   o.issuer,
		Renewals: o.renewals,
		Callers:  auth.NewAuthenticator(o.Cluster, nil, nil),
		Rights: &auth.Authorizer{
			SystemNamespace: names.SystemNamespace, TrustDomain: o.authority.TrustDomain, Pods: o.Cluster, Workloads: o.Cluster,
			Waypoint: o.Waypoint,
		},
		Registerer: o.metrics,
		Log: funcr.New(func(_, args string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.logs.WriteString(args + "\n")
		}, funcr.Options{Verbosity: 9}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Start(ctx) }()
	o.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		ServerName: serverName, RootCAs: o.authority.Bundle().Pool(), MinVersion: tls.VersionTLS13,
	}}}
	t.Cleanup(func() {
		o.client.CloseIdleConnections()
		cancel()
		assert.NoError(t, <-done)
	})
	return o
}

func (o *operator) do(
	t *testing.T, method, path, token string, body []byte, header ...string,
) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, o.url+path, bytes.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := o.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, answer
}

func signRequest(t *testing.T, csrFor, id string) []byte {
	t.Helper()
	key, err := identity.GenerateKey()
	require.NoError(t, err)
	csr, err := identity.NewCSR(csrFor, key)
	require.NoError(t, err)
	body, err := json.Marshal(identity.SignRequest{CSR: string(csr), Identity: id})
	require.NoError(t, err)
	return body
}

func TestSign(t *testing.T) {
	o := newOperator(t)
	resp, body := o.do(t, http.MethodPost, identity.PathSign, o.Token(identitytest.NodeAgent("n1"), time.Hour),
		signRequest(t, cart, cart))
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	assert.Equal(t, uint16(tls.VersionTLS13), resp.TLS.Version)
	var r identity.SignResponse
	require.NoError(t, json.Unmarshal(body, &r))
	chain, err := identity.ParseCertificates([]byte(r.CertificateChain))
	require.NoError(t, err)
	bundle, err := identity.ParseBundle([]byte(r.TrustBundle))
	require.NoError(t, err)
	assert.NoError(t, bundle.VerifyLeaf(chain, time.Now()))
	assert.Equal(t, cart, chain[0].URIs[0].String())
	assert.True(t, r.NotAfter.Equal(chain[0].NotAfter))
}

func TestRefusals(t *testing.T) {
	o := newOperator(t)
	agent := identitytest.NodeAgent("n1")
	good := o.Token(agent, time.Hour)
	app := o.Token(auth.Caller{Namespace: "shop", ServiceAccount: "cart", PodName: "cart-1", PodUID: "c1", NodeName: "n1"},
		time.Hour)
	for _, tc := range []struct {
		name         string
		method, path string
		token        string
		body         []byte
		code         int
		want         string
	}{
		{"no token", "POST", identity.PathSign, "", signRequest(t, cart, cart), 401, "no bearer token"},
		{"wrong token", "POST", identity.PathSign, "nonsense", signRequest(t, cart, cart), 401, "rejects the token"},
		{
			"expired token", "POST", identity.PathSign, o.Token(agent, -time.Minute), signRequest(t, cart, cart), 401,
			"rejects the token",
		},
		{
			"token for the API server", "POST", identity.PathSign, o.Token(agent, time.Hour, "https://kubernetes.default.svc"),
			signRequest(t, cart, cart), 401, "audience",
		},
		{"an application's token", "POST", identity.PathSign, app, signRequest(t, cart, cart), 403, "neither a node agent"},
		{"pod of another node", "POST", identity.PathSign, good, signRequest(t, pay, pay), 403, "runs on node n1"},
		{"forged SAN", "POST", identity.PathSign, good, signRequest(t, pay, cart), 400, "URI is"},
		{"other trust domain", "POST", identity.PathSign, good, signRequest(t, "spiffe://evil/ns/shop/sa/cart",
			"spiffe://evil/ns/shop/sa/cart"), 400, "trust domain"},
		{"oversized", "POST", identity.PathSign, good, make([]byte, 64<<10), 413, "larger than"},
		{"not JSON", "POST", identity.PathSign, good, []byte("{"), 400, "isn't JSON"},
		{"no CSR", "POST", identity.PathSign, good, []byte(`{"identity":"` + cart + `"}`), 400, "PEM"},
		{"wrong method", "GET", identity.PathSign, good, nil, 404, "no GET"},
		{"wrong path", "POST", "/v1/other", good, nil, 404, "no POST"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := o.do(t, tc.method, tc.path, tc.token, tc.body)
			assert.Equal(t, tc.code, resp.StatusCode, string(body))
			var e identity.ErrorResponse
			require.NoError(t, json.Unmarshal(body, &e), string(body))
			assert.Contains(t, e.Error, tc.want)
			assert.NotContains(t, e.Error, "secret detail")
		})
	}
	resp, _ := o.do(t, http.MethodPost, identity.PathSign, good, signRequest(t, cart, cart))
	assert.Equal(t, http.StatusOK, resp.StatusCode, "all else goes on working")

	for reason, n := range map[string]float64{"unauthenticated": 4, "forbidden": 2} {
		require.Equal(t, n, o.refused(t, reason), reason)
	}

	o.SetDown(true)
	resp, body := o.do(t, http.MethodPost, identity.PathSign, o.Token(agent, 2*time.Hour), signRequest(t, cart, cart))
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, string(body))
	assert.NotEmpty(t, resp.Header.Get("Retry-After"))
	for _, secret := range []string{good, app} {
		assert.NotContains(t, o.logged(), secret, "tokens aren't logged")
	}
}

// refused is the count of refusals for a reason.
func (o *operator) refused(t *testing.T, reason string) float64 {
	families, err := o.metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "fairway_certificates_refused_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestAnIssuersFailureIsToldAndRemembered: the agent hears why, and the operator knows for how long what the agent has
// holds.
func TestAnIssuersFailureIsToldAndRemembered(t *testing.T) {
	o := newOperator(t)
	token := o.Token(identitytest.NodeAgent("n1"), time.Hour)
	until := time.Now().Add(5 * time.Hour).Truncate(time.Second)
	ask := func(want int) string {
		var req identity.SignRequest
		require.NoError(t, json.Unmarshal(signRequest(t, cart, cart), &req))
		req.Held = identity.Held{NotAfter: until, FailingSince: time.Now().Add(-time.Hour)}
		body, err := json.Marshal(req)
		require.NoError(t, err)
		resp, answer := o.do(t, http.MethodPost, identity.PathSign, token, body)
		require.Equal(t, want, resp.StatusCode, string(answer))
		return string(answer)
	}
	o.issuer.set(identity.Issuef(identity.IssueBusy, "come again"), nil)
	require.Contains(t, ask(http.StatusServiceUnavailable), "come again")
	require.False(t, o.renewals.Summary().Any, "that says nothing of the issuer")

	o.issuer.set(identity.Issuef(identity.IssueDenied, "policy says no"), nil)
	require.Contains(t, ask(http.StatusBadGateway), "policy says no")
	s := o.renewals.Summary()
	require.Equal(t, 1, s.Failing)
	require.True(t, until.Equal(s.First))
	require.Equal(t, cart, s.FirstOf)
	require.Contains(t, s.Holders[0], "node n1")
	require.Equal(t, 2.0, o.refused(t, "issuer"))

	resp, _ := o.do(t, http.MethodPost, identity.PathSign, token, signRequest(t, pay, pay))
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	require.Equal(t, 1, o.renewals.Summary().Failing, "what a caller has no right to isn't failing")
	o.issuer.set(nil, nil)
	ask(http.StatusOK)
	require.False(t, o.renewals.Summary().Any)
}

// TestOneCallerCanNotUseUpTheIssuer: a caller that asks for more at a time is told to come again, and others are not.
func TestOneCallerCanNotUseUpTheIssuer(t *testing.T) {
	o := newOperator(t)
	hold := make(chan struct{})
	o.issuer.set(nil, hold)
	greedy := o.Token(identitytest.NodeAgent("n1"), time.Hour)
	codes := make(chan int, 16)
	var asking sync.WaitGroup
	for range cap(codes) {
		body := signRequest(t, cart, cart)
		asking.Go(func() {
			resp, _ := o.do(t, http.MethodPost, identity.PathSign, greedy, body)
			codes <- resp.StatusCode
		})
	}
	for range cap(codes) - 8 {
		require.Equal(t, http.StatusTooManyRequests, <-codes)
	}
	o.issuer.set(nil, nil)
	resp, body := o.do(t, http.MethodPost, identity.PathSign, o.Token(identitytest.NodeAgent("n2"), time.Hour),
		signRequest(t, pay, pay))
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	close(hold)
	asking.Wait()
	for range 8 {
		require.Equal(t, http.StatusOK, <-codes)
	}
}

func TestTrustBundle(t *testing.T) {
	o := newOperator(t)
	resp, body := o.do(t, http.MethodGet, identity.PathTrustBundle, "", nil)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	b, err := identity.ParseBundle(body)
	require.NoError(t, err)
	assert.True(t, b.Equal(o.authority.Bundle()))
	resp, body = o.do(t, http.MethodGet, identity.PathTrustBundle, "", nil, "If-None-Match", resp.Header.Get("ETag"))
	assert.Equal(t, http.StatusNotModified, resp.StatusCode)
	assert.Empty(t, body)
}

func TestOneCallerCanNotFloodTheOperator(t *testing.T) {
	o := newOperator(t)
	greedy, modest := o.Token(identitytest.NodeAgent("n1"), time.Hour), o.Token(identitytest.NodeAgent("n2"), time.Hour)
	limited := false
	for range 2000 {
		resp, _ := o.do(t, http.MethodPost, identity.PathSign, greedy, nil)
		if resp.StatusCode == http.StatusTooManyRequests {
			limited = true
			break
		}
	}
	assert.True(t, limited)
	resp, _ := o.do(t, http.MethodPost, identity.PathSign, modest, nil)
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode, "its own request is looked at")
}

func TestOldTLSIsRefused(t *testing.T) {
	o := newOperator(t)
	_, err := tls.Dial("tcp", strings.TrimPrefix(o.url, "https://"), &tls.Config{
		ServerName: serverName, RootCAs: o.authority.Bundle().Pool(), MaxVersion: tls.VersionTLS12,
	})
	require.ErrorContains(t, err, "protocol version")
}

func TestWithoutACA(t *testing.T) {
	c := identitytest.NewCluster(nil)
	h := (&server.Server{
		Issuer: identity.NewAuthority(nil), Callers: auth.NewAuthenticator(c, nil, nil),
		Rights: &auth.Authorizer{
			SystemNamespace: names.SystemNamespace, TrustDomain: func() string { return "" }, Pods: c,
			Workloads: c, Waypoint: c.Waypoint,
		},
		Log: logr.Discard(),
	}).Handler()
	for path, code := range map[string]int{identity.PathSign: 503} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+path,
			bytes.NewReader(signRequest(t, cart, cart)))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+c.Token(identitytest.NodeAgent("n1"), time.Hour))
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, req)
		assert.Equal(t, code, w.code, path)
	}
}

type recorder struct {
	header http.Header
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(code int)        { r.code = code }

func TestBadTokensDoNotFloodTheLog(t *testing.T) {
	o := newOperator(t)
	for range 300 {
		resp, _ := o.do(t, http.MethodPost, identity.PathSign, "nonsense", nil)
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Less(t, strings.Count(o.logs.String(), "token refused"), 100)
}
