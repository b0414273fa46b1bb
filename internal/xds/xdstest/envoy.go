// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package xdstest runs a real stock Envoy against a delta ADS server in tests.
package xdstest

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
	"sync"
	"syscall"
	"testing"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// envBinary is the environment variable that names the Envoy binary; without it, "envoy" is looked up in PATH.
const envBinary = "FAIRWAY_ENVOY"

// keptLog are the bytes of Envoy's log that are kept for a failing test.
const keptLog = 256 << 10

// Binary returns the path of Envoy, or skips the test with the reason.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(envBinary); path != "" {
		return path
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		t.Skipf("no Envoy: set %s to the path of an Envoy binary, or put envoy into PATH", envBinary)
	}
	return path
}

// Validate shows a configuration, JSON or YAML, to an Envoy, which must take it, and returns what it says besides.
func Validate(t testing.TB, binary string, config []byte) string {
	t.Helper()
	out, err := Check(t, binary, config)
	if err != nil {
		t.Errorf("Envoy refuses: %v\n%s", err, out)
	}
	return out
}

// Check shows a configuration, JSON or YAML, to an Envoy, and returns what it says, and an error if it doesn't take it.
func Check(t testing.TB, binary string, config []byte) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), binary, "--mode", "validate", "-l", "warning", "--use-dynamic-base-id", "-c",
		file)
	out, err := c.CombinedOutput()
	return string(out), err
}

// Envoy is a running proxy.
type Envoy struct {
	t     testing.TB
	cmd   *exec.Cmd
	done  <-chan struct{}
	admin *http.Client
	log   *tail
}

// Options of Start.
type Options struct {
	// XDSSocket is the Unix socket of the delta ADS server.
	XDSSocket string
	// Wildcards subscribes to all clusters and all listeners (cds_config, lds_config).
	Wildcards bool
	// Isolated has Envoy in a network of its own, where any port is free. Root only; without effect for others.
	Isolated bool
	// Internal lets listeners be internal ones.
	Internal bool
	// Listeners and Secrets are static resources, as Envoy's JSON.
	Listeners, Secrets []any
}

// Start runs Envoy until the test ends, or Stop. It returns as soon as the admin interface answers, which is before
// Envoy has any configuration.
func Start(t testing.TB, opts Options) *Envoy {
	t.Helper()
	binary := Binary(t)
	// A Unix socket's path must be short, so not t.TempDir().
	dir, err := os.MkdirTemp("", "envoy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "admin.sock")
	config, err := json.Marshal(bootstrap(socket, opts))
	if err != nil {
		t.Fatal(err)
	}
	e := &Envoy{t: t, log: &tail{}}
	e.cmd = exec.Command(binary, "--config-yaml", string(config), "--use-dynamic-base-id", "--concurrency", "1", "-l",
		"info")
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	if opts.Isolated && os.Geteuid() == 0 {
		e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	if e.done, err = StartTied(e.cmd); err != nil {
		t.Fatal(err)
	}
	e.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (
		net.Conn, error,
	) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(func() {
		e.Stop()
		if t.Failed() {
			t.Logf("Envoy's log:\n%s", e.log)
		}
	})
	e.Eventually("admin interface", func() bool { _, err := e.Get("/server_info"); return err == nil })
	return e
}

// Stop ends Envoy.
func (e *Envoy) Stop() {
	_ = e.cmd.Process.Kill()
	<-e.done
}

// Get asks the admin interface.
func (e *Envoy) Get(path string) (string, error) {
	resp, err := e.admin.Get("http://admin" + path)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(body), err
}

// Eventually waits for a condition, and fails the test if Envoy ends meanwhile.
func (e *Envoy) Eventually(what string, cond func() bool) {
	e.t.Helper()
	eventually.True(e.t, what, func() bool {
		if cond() {
			return true
		}
		select {
		case <-e.done:
			e.t.Fatalf("Envoy ended while waiting for: %s", what)
		default:
		}
		return false
	})
}

// Active returns the names of a section of the configuration dump, such as dynamic_active_clusters.
func (e *Envoy) Active(section string) map[string]bool {
	body, err := e.Get("/config_dump?resource=" + section)
	if err != nil {
		return nil
	}
	var dump struct {
		Configs []struct {
			Name    string
			Cluster struct{ Name string }
		}
	}
	if json.Unmarshal([]byte(body), &dump) != nil {
		return nil
	}
	out := map[string]bool{}
	for _, c := range dump.Configs {
		out[c.Name+c.Cluster.Name] = true
	}
	return out
}

type object = map[string]any

func bootstrap(admin string, opts Options) object {
	ads := object{"ads": object{}, "resource_api_version": "V3"}
	dynamic := object{"ads_config": object{
		"api_type": "DELTA_GRPC", "transport_api_version": "V3",
		"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "agent"}}},
	}}
	if opts.Wildcards {
		dynamic["cds_config"], dynamic["lds_config"] = ads, ads
	}
	agent := object{
		"name": "agent", "type": "STATIC",
		"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
			"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": object{"http2_protocol_options": object{}},
		}},
		"load_assignment": object{"cluster_name": "agent", "endpoints": []any{object{"lb_endpoints": []any{
			object{"endpoint": object{"address": object{"pipe": object{"path": opts.XDSSocket}}}},
		}}}},
	}
	var extensions []any
	if opts.Internal {
		extensions = append(extensions, object{"name": "envoy.bootstrap.internal_listener", "typed_config": object{
			"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
		}})
	}
	return object{
		"node":                 object{"id": "test", "cluster": "test"},
		"bootstrap_extensions": extensions,
		"admin":                object{"address": object{"pipe": object{"path": admin}}},
		"dynamic_resources":    dynamic,
		"static_resources": object{
			"clusters":  []any{agent},
			"listeners": append([]any{}, opts.Listeners...),
			"secrets":   append([]any{}, opts.Secrets...),
		},
	}
}

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if over := w.buf.Len() + len(p) - keptLog; over > 0 {
		w.buf.Next(over)
	}
	return w.buf.Write(p)
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
