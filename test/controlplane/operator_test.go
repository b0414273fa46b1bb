// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/operator"
)

// envOperator has a process of this test be an operator: the path of its orders.
const envOperator = "FAIRWAY_TEST_OPERATOR"

func TestMain(m *testing.M) {
	if path := os.Getenv(envOperator); path != "" {
		if err := beOperator(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// orders of an operator's process. The API server is on another network's loopback, so it is reached by a socket.
type orders struct {
	Pod, Host, APIServer, Asked string
	TLS                         rest.TLSClientConfig
}

// beOperator runs an operator until standard input ends, and answers what it is asked on a socket: what it has used,
// its metrics and its profiles.
func beOperator(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var o orders
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", o.Asked)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/usage", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(ownUsage()) })
	mux.Handle("/metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/heap", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		_ = pprof.Lookup("heap").WriteTo(w, 0)
	})
	var profile bytes.Buffer
	mux.HandleFunc("/start", func(http.ResponseWriter, *http.Request) {
		profile.Reset()
		_ = pprof.StartCPUProfile(&profile)
	})
	mux.HandleFunc("/stop", func(w http.ResponseWriter, _ *http.Request) {
		pprof.StopCPUProfile()
		_, _ = w.Write(profile.Bytes())
	})
	go func() { _ = http.Serve(l, mux) }()
	cfg := &rest.Config{
		Host: o.Host, TLSClientConfig: o.TLS,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", o.APIServer)
		},
	}
	log := zap.New(zap.Level(zapcore.InfoLevel))
	ctrl.SetLogger(log)
	return operator.Run(ctx, cfg, operator.Options{
		Namespace: names.SystemNamespace, PodName: o.Pod, Image: names.Image, EnvoyImage: names.EnvoyImage,
		LeaderElection: true, AutomaticLinger: controllers.DefaultAutomaticLinger, CARotation: identity.DefaultPolicy,
		Log: log,
	})
}

// usage of an operator: seconds of CPU, and bytes of memory, of which some are the file of the program.
type usage struct {
	CPU                  float64
	Resident, File, Heap uint64
	GCs                  uint32
}

func ownUsage() (out usage) {
	var used unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &used)
	out.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseUint(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			out.Resident = kb << 10
		case "RssFile:":
			out.File = kb << 10
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out.Heap, out.GCs = m.HeapAlloc, m.NumGC
	return out
}

// replica is one operator.
type replica struct {
	name string
	at   *netns.Namespace
	http *http.Client
}

// start runs an operator inside a network namespace until the test ends.
func start(t testing.TB, cfg *rest.Config, apiServer, name string, at *netns.Namespace) *replica {
	t.Helper()
	dir := t.TempDir()
	o := orders{
		Pod: name, Host: cfg.Host, TLS: cfg.TLSClientConfig, APIServer: apiServer,
		Asked: filepath.Join(dir, "asked.sock"),
	}
	text, err := json.Marshal(o)
	require.NoError(t, err)
	path := filepath.Join(dir, "orders.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Env = append(os.Environ(), envOperator+"="+path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, at.Do(cmd.Start))
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s said:\n%s", name, text[max(0, len(text)-4096):])
		}
	})
	r := &replica{name: name, at: at, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", o.Asked)
		},
	}}}
	eventually.PassesWithin(t, time.Minute, name+" is ready", func(look require.TestingT) {
		conn, err := r.dial(t.Context(), names.PortOperatorHealth)
		require.NoError(look, err)
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, "GET /readyz HTTP/1.0\r\n\r\n")
		require.NoError(look, err)
		said, _ := io.ReadAll(conn)
		require.Contains(look, string(said), " 200 ")
	})
	return r
}

// dial a port of the replica.
func (r *replica) dial(ctx context.Context, port int) (conn net.Conn, err error) {
	err = r.at.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err
	})
	return conn, err
}

// ask a replica for something of itself.
func (r *replica) ask(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://operator"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

func (r *replica) usage(t testing.TB) (out usage) {
	t.Helper()
	text, err := r.ask(t.Context(), "/usage")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &out))
	return out
}
