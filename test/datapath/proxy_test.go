// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/eventually"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// proxy is a running Envoy.
type proxy struct {
	t        testing.TB
	cmd      *exec.Cmd
	stdout   string
	admin    string
	finished chan struct{}
}

// startProxy runs the node's Envoy in the node's namespace.
func startProxy(t testing.TB, n *meshNode) *proxy {
	t.Helper()
	admin := filepath.Join(t.TempDir(), "admin.sock")
	config, err := bootstrap.Marshal(bootstrap.Bootstrap(bootstrap.Options{
		ID: n.name, Cluster: "node", XDSSocket: n.socket, AdminSocket: admin, Memory: 2 << 30,
		Clusters: translatenode.StaticClusters(bootstrap.DefaultMaxConnections, n.mark),
	}))
	require.NoError(t, err)
	return runEnvoy(t, n.name, n.ns, config, admin)
}

// runEnvoy with a bootstrap in a namespace, with no more capabilities than a node proxy's container has.
func runEnvoy(t testing.TB, name string, ns *netns.Namespace, config []byte, admin string) *proxy {
	t.Helper()
	dir := t.TempDir()
	p := &proxy{t: t, stdout: filepath.Join(dir, "stdout"), admin: admin, finished: make(chan struct{})}
	file := filepath.Join(dir, "envoy.json")
	require.NoError(t, os.WriteFile(file, config, 0o600))
	stdout, err := os.Create(p.stdout)
	require.NoError(t, err)
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	require.NoError(t, err)
	level := os.Getenv("FAIRWAY_ENVOY_LOG")
	if level == "" {
		level = "warning"
	}
	p.cmd = exec.Command(xdstest.Binary(t), "-c", file, "--concurrency", "2", "--disable-hot-restart", "-l", level,
		"--file-flush-interval-msec", "20", "--drain-time-s", "1")
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	require.NoError(t, ns.Do(func() error {
		if err := keepCapabilities(unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN); err != nil {
			return err
		}
		return p.cmd.Start()
	}))
	go func() {
		_ = p.cmd.Wait()
		close(p.finished)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() || os.Getenv("FAIRWAY_ENVOY_LOG") != "" {
			for _, f := range []string{p.stdout, stderr.Name()} {
				b, _ := os.ReadFile(f)
				t.Logf("%s of %s:\n%s", filepath.Base(f), name, b)
			}
		}
	})
	return p
}

// capabilities that the proxy has, as the kernel prints them. It has them once it runs.
func (p *proxy) capabilities() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	return string(regexp.MustCompile(`CapEff:\s+(\w+)`).FindSubmatch(b)[1])
}

// keepCapabilities takes all others from the thread and from what it starts. The thread must be one that ends soon.
func keepCapabilities(keep ...uintptr) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// stop ends the proxy at once.
func (p *proxy) stop() {
	_ = p.cmd.Process.Kill()
	<-p.finished
}

// logged waits for a line of the access log with all of these fields.
func (p *proxy) logged(want map[string]any) map[string]any {
	p.t.Helper()
	var found map[string]any
	eventually.Passes(p.t, fmt.Sprintf("a line of the access log with %v", want), func(look require.TestingT) {
		found = p.line(want)
		require.NotNil(look, found, "no line with %v in the access log", want)
	})
	return found
}

func (p *proxy) line(want map[string]any) map[string]any {
	b, err := os.ReadFile(p.stdout)
	require.NoError(p.t, err)
next:
	for _, l := range bytes.Split(b, []byte("\n")) {
		have := map[string]any{}
		if json.Unmarshal(l, &have) != nil {
			continue
		}
		for k, v := range want {
			if have[k] != v {
				continue next
			}
		}
		return have
	}
	return nil
}
