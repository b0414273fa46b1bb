// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/buildinfo"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

type proxies []xds.ProxyState

func (p proxies) Proxies() []xds.ProxyState { return p }

// fakeEnvoy answers as Envoy's admin interface does, on a Unix socket.
func fakeEnvoy(t *testing.T, h http.Handler) *Envoy {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Second}}
	s.Start()
	t.Cleanup(s.Close)
	return NewEnvoy(socket)
}

// ofVersion is an Envoy that is live, and of a version.
func ofVersion(t *testing.T, version string) *Envoy {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("LIVE\n")) })
	mux.HandleFunc("/server_info", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"version":%q,"state":"LIVE"}`, version)
	})
	return fakeEnvoy(t, mux)
}

// An Envoy that rejects a part of its configuration for its age would go on without that part.
func TestAnEnvoyThatIsTooOld(t *testing.T) {
	for version, want := range map[string]string{
		"4e2f1ab/1.40.0/Clean/RELEASE/BoringSSL":        "",
		"4e2f1ab/1.41.2-dev/Modified/RELEASE/BoringSSL": "",
		"4e2f1ab/1.39.3/Clean/RELEASE/BoringSSL":        "the proxy is Envoy 1.39.3, and the mesh needs 1.40.0 or later",
		"4e2f1ab":                                       "the proxy says a version that can't be read",
		"4e2f1ab/new/Clean/x/y":                         "the proxy says a version that can't be read",
	} {
		err := ofVersion(t, version).Ready(t.Context())
		if want == "" {
			require.NoError(t, err, version)
		} else {
			require.ErrorContains(t, err, want, version)
		}
	}
}

// Operator and agents say what they run, and agents what their Envoy is, if it answers.
func TestVersions(t *testing.T) {
	const envoy = "4e2f1ab/1.40.0/Clean/RELEASE/BoringSSL"
	for name, c := range map[string]struct {
		handler http.Handler
		envoy   string
	}{
		"operator":               {handler: operatorOf(proxies{})},
		"agent":                  {AgentHandler(nil, ofVersion(t, envoy), http.NotFoundHandler()), envoy},
		"agent without an Envoy": {handler: AgentHandler(nil, absentEnvoy(t), http.NotFoundHandler())},
	} {
		code, body := ask(c.handler, http.MethodGet, PathVersion)
		require.Equal(t, http.StatusOK, code, name)
		var got Version
		require.NoError(t, json.Unmarshal([]byte(body), &got))
		require.Equal(t, Version{Version: names.Version, Commit: buildinfo.Commit(), Envoy: c.envoy}, got, name)
	}
}

func absentEnvoy(t *testing.T) *Envoy { return NewEnvoy(filepath.Join(t.TempDir(), "none.sock")) }

func ask(h http.Handler, method, target string) (int, string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, nil)
	r.Host = LoopbackAddress
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func operatorOf(p proxies) http.Handler {
	return OperatorHandler(p, counts.NewStrangers(), http.NotFoundHandler())
}

func TestOperatorCountsWhatProxiesAcknowledged(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := operatorOf(proxies{{
		Proxy: xds.Proxy{
			Scope: "node/node1", Pod: "fairway-system/fairway-node-x", PodUID: "u", Node: "node1",
			Address: "10.0.0.1:9",
		},
		Connected: since,
		Types: map[string]xds.TypeState{
			xds.TypeRoute: {Resources: []xds.ResourceStatus{
				{Name: "accepted", Sent: "2", Acked: "2"},
				{Name: "accepted before it reconnected", Acked: "1"},
				{Name: "under way", Sent: "3", Acked: "2"},
				{Name: "refused", Sent: "4", Acked: "3", Rejected: "4", Error: "no such cluster"},
				{Name: "corrected after a refusal, under way", Sent: "5", Acked: "3", Rejected: "4", Error: "no such cluster"},
				{Name: "known not to exist"},
			}},
			xds.TypeCluster: {Names: []string{"10.96.0.1:80", "10.96.0.2:80"}, Resources: []xds.ResourceStatus{
				{Name: "10.96.0.1:80", Sent: "1", Acked: "1"},
			}},
		},
	}})
	code, body := ask(h, http.MethodGet, PathProxies)
	require.Equal(t, http.StatusOK, code)
	var got Proxies
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, Proxies{Proxies: []Proxy{{
		Scope: "node/node1", Pod: "fairway-system/fairway-node-x", PodUID: "u", Node: "node1", Address: "10.0.0.1:9",
		Connected: since,
		Types: []Type{
			{Name: "Cluster", Resources: 2, Acked: 1, Pending: 1},
			{
				Name: "RouteConfiguration", Resources: 5, Acked: 2, Pending: 2, Rejected: 1,
				Rejections: []Rejection{{Resource: "refused", Version: "4", Error: "no such cluster"}},
			},
		},
	}}}, got)
	acked, pending, rejected := got.Proxies[0].Counts()
	assert.Equal(t, []int{3, 3, 1}, []int{acked, pending, rejected})
}

func TestOperatorIsReadOnly(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		code, _ := ask(operatorOf(proxies{}), method, PathProxies)
		assert.Equal(t, http.StatusMethodNotAllowed, code, method)
	}
	code, body := ask(operatorOf(proxies{}), http.MethodGet, PathProxies)
	assert.Equal(t, http.StatusOK, code)
	assert.JSONEq(t, `{"proxies": []}`, body)
}

func TestAgentPassesOnlyReadingOn(t *testing.T) {
	envoy := fakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, r.Method+" "+r.URL.String())
	}))
	h := AgentHandler(func() Agent { return Agent{Kind: catalogue.Node, Node: "node1"} }, envoy, http.NotFoundHandler())

	for path, want := range map[string]string{
		"config_dump?include_eds=on": "GET /config_dump?include_eds=on",
		"stats/prometheus":           "GET /stats/prometheus",
		"clusters?format=json":       "GET /clusters?format=json",
	} {
		code, body := ask(h, http.MethodGet, PathEnvoy+path)
		assert.Equal(t, http.StatusOK, code, path)
		assert.Equal(t, want, body)
	}
	for _, path := range []string{
		"quitquitquit", "logging?level=trace", "cpuprofiler", "stats/", "drain_listeners", "",
		"runtime_modify",
	} {
		code, _ := ask(h, http.MethodGet, PathEnvoy+path)
		assert.Equal(t, http.StatusNotFound, code, path)
	}
	code, _ := ask(h, http.MethodPost, PathEnvoy+"stats")
	assert.Equal(t, http.StatusMethodNotAllowed, code)

	code, body := ask(h, http.MethodGet, PathAgent)
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, `"node":"node1"`)

	code, body = ask(AgentHandler(nil, absentEnvoy(t), http.NotFoundHandler()), http.MethodGet, PathEnvoy+"clusters")
	assert.Equal(t, http.StatusBadGateway, code)
	assert.Contains(t, body, "admin interface doesn't answer")
}

func TestSecretNumbersAreHidden(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	envoy := fakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"int_value": "1234567890"}`+"\n"+long+"1987654321\n"+`{"other": 7}`)
	}))
	envoy.Hide("1234567890", "1987654321")
	code, body := ask(AgentHandler(nil, envoy, http.NotFoundHandler()), http.MethodGet, PathEnvoy+"config_dump")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, `{"int_value": "0"}`+"\n"+long+"0\n"+`{"other": 7}`, body)
}

func TestReadyAndHealthy(t *testing.T) {
	live := ofVersion(t, "x/1.40.0/Clean/RELEASE/BoringSSL")
	starting := fakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "PRE_INITIALIZING", http.StatusServiceUnavailable)
	}))
	starting.supported.Store(true)
	broken := func() error { return errors.New("not yet") }
	for name, c := range map[string]struct {
		public         Public
		healthy, ready int
		says           string
	}{
		"all is well":       {Public{Envoy: live}, 200, 200, "ok\n"},
		"no configuration":  {Public{Envoy: live, Configured: broken}, 200, 503, "not yet\n"},
		"Envoy is starting": {Public{Envoy: starting}, 200, 503, "the proxy is not live: PRE_INITIALIZING\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := c.public.Handler()
			code, _ := ask(h, http.MethodGet, pathHealthy)
			assert.Equal(t, c.healthy, code)
			code, body := ask(h, http.MethodGet, pathReady)
			assert.Equal(t, c.ready, code)
			assert.Equal(t, c.says, body)
		})
	}
	code, _ := ask(Public{Envoy: absentEnvoy(t)}.Handler(), http.MethodGet, pathReady)
	assert.Equal(t, http.StatusServiceUnavailable, code)
}

func TestMetricsOfAgentAndProxyTogether(t *testing.T) {
	own := prometheus.NewRegistry()
	prometheus.WrapRegistererWith(nil, own).MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "fairway_agent_captured_pods", Help: "Pods."}, func() float64 { return 3 }))
	envoy := fakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/stats/prometheus", r.URL.Path)
		_, _ = io.WriteString(w, "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n")
	}))
	code, body := ask(Public{Envoy: envoy, Metrics: own}.Handler(), http.MethodGet, PathMetrics)
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, `# HELP fairway_agent_captured_pods Pods.
# TYPE fairway_agent_captured_pods gauge
fairway_agent_captured_pods 3
# HELP fairway_agent_envoy_up Whether the proxy answered for its metrics.
# TYPE fairway_agent_envoy_up gauge
fairway_agent_envoy_up 1
# TYPE envoy_server_live gauge
envoy_server_live{} 1
`, body)

	code, body = ask(Public{Envoy: absentEnvoy(t), Metrics: own}.Handler(), http.MethodGet, PathMetrics)
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, "fairway_agent_envoy_up 0\n")
}

func TestListenersAcknowledged(t *testing.T) {
	lds := func(inFlight bool, r ...xds.ResourceStatus) proxies {
		return proxies{{Types: map[string]xds.TypeState{
			xds.TypeListener: {Wildcard: true, InFlight: inFlight, Resources: r},
		}}}
	}
	acked := xds.ResourceStatus{Name: "mtls", Sent: "1", Acked: "1"}
	for name, c := range map[string]struct {
		source   proxies
		required []string
		says     string
	}{
		"no proxy":               {nil, nil, "has not asked for its configuration"},
		"no subscription":        {proxies{{}}, nil, "has not asked for its listeners"},
		"a node without pods":    {lds(false), nil, ""},
		"first answer under way": {lds(true), nil, "has not answered for its listeners"},
		"accepted":               {lds(false, acked), []string{"mtls"}, ""},
		"a required one is missing": {
			lds(false, acked),
			[]string{"mtls", "tunnel"},
			"has not accepted listener tunnel",
		},
		"never answered": {
			lds(true, acked, xds.ResourceStatus{Name: "b", Sent: "1"}), nil,
			"has not answered for listener b",
		},
		"an update under way is no alarm": {lds(true, xds.ResourceStatus{Name: "mtls", Sent: "2", Acked: "1"}), []string{
			"mtls",
		}, ""},
		"a bad one beside good ones": {
			lds(false, acked, xds.ResourceStatus{Name: "b", Sent: "1", Rejected: "1"}), nil,
			"",
		},
		"a required one is bad": {lds(false, xds.ResourceStatus{Name: "mtls", Sent: "1", Rejected: "1"}), []string{
			"mtls",
		}, "has not accepted listener mtls"},
		"one of two streams is complete": {append(lds(true), lds(false, acked)...), []string{"mtls"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := ListenersAcknowledged(c.source, c.required...)()
			if c.says == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.says)
			}
		})
	}
}

func TestServeUntilTheContextEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, operatorOf(proxies{})) }()
	res, err := http.Get("http://" + l.Addr().String() + PathProxies)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, http.StatusOK, res.StatusCode)
	cancel()
	assert.NoError(t, <-done)
	assert.ErrorContains(t, Serve(t.Context(), "127.0.0.1:not-a-port", nil), "introspection:")
}

// Kubelet's hook waits until the proxy has drained.
func TestDrained(t *testing.T) {
	d := NewDrain()
	server := httptest.NewServer(Public{Drain: d}.Handler())
	defer server.Close()
	answered := make(chan int, 1)
	go func() {
		res, err := http.Get(server.URL + pathDrained)
		if err == nil {
			answered <- res.StatusCode
			_ = res.Body.Close()
		}
	}()
	d.Begin()
	require.Never(t, func() bool { return len(answered) > 0 }, 50*time.Millisecond, 10*time.Millisecond)
	d.End()
	require.Equal(t, http.StatusOK, <-answered)
}

// A proxy that starts is waited for a moment, once.
func TestReadyWaitsForAStart(t *testing.T) {
	var configured atomic.Bool
	h := Public{
		Envoy:    ofVersion(t, "x/1.40.0/Clean/RELEASE/BoringSSL"),
		Patience: time.Minute,
		Configured: func() error {
			if configured.Swap(true) {
				return nil
			}
			return errors.New("not yet")
		},
	}.Handler()
	code, _ := ask(h, http.MethodGet, pathReady)
	require.Equal(t, http.StatusOK, code)
	configured.Store(false)
	code, _ = ask(h, http.MethodGet, pathReady)
	require.Equal(t, http.StatusServiceUnavailable, code, "it had started")
}

// TestNamesOfOthersAreRefused: a browser that is led to the loopback address under another site's name must not read
// anything.
func TestNamesOfOthersAreRefused(t *testing.T) {
	for host, want := range map[string]int{
		LoopbackAddress: http.StatusOK, "localhost:8001": http.StatusOK, "[::1]:15000": http.StatusOK,
		"127.0.0.1":              http.StatusOK,
		"attacker.example:15000": http.StatusMisdirectedRequest, "10.0.0.1:15000": http.StatusMisdirectedRequest,
		"": http.StatusMisdirectedRequest,
	} {
		for name, h := range map[string]http.Handler{
			PathProxies: operatorOf(proxies{}),
			PathAgent:   AgentHandler(func() Agent { return Agent{} }, nil, http.NotFoundHandler()),
		} {
			r, w := httptest.NewRequest(http.MethodGet, name, nil), httptest.NewRecorder()
			r.Host = host
			h.ServeHTTP(w, r)
			require.Equal(t, want, w.Code, "%s as %q", name, host)
		}
	}
}
