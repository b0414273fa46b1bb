// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	echov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/echo/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// What a drain waits for is a statistic that a real Envoy of the mesh keeps.
func TestDrainCountsWhatEnvoyCounts(t *testing.T) {
	dir := startEnvoy(t)
	socket := filepath.Join(dir, "admin.sock")
	proxy := admin.New(socket)
	t.Cleanup(proxy.Close)
	var c net.Conn
	eventually.True(t, "Envoy listens", func() bool {
		var err error
		c, err = net.Dial("unix", filepath.Join(dir, "mesh.sock"))
		return err == nil
	})
	_, err := io.WriteString(c, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 1))
	require.NoError(t, err)
	idle, err := proxy.Idle(t.Context())
	require.NoError(t, err)
	require.False(t, idle)

	require.NoError(t, c.Close())
	began := time.Now()
	require.NoError(t, drain(t.Context(), socket, time.Minute, time.Millisecond))
	require.Less(t, time.Since(began), 30*time.Second)
}

// startEnvoy with what a waypoint starts with, and a listener (mesh.sock) that limits its peers and says what they say.
func startEnvoy(t *testing.T) (dir string) {
	t.Helper()
	binary := xdstest.Binary(t)
	dir, err := os.MkdirTemp("", "drain") // the path of a Unix socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := bootstrap.Bootstrap(bootstrap.Options{
		XDSSocket: filepath.Join(dir, "xds.sock"), AdminSocket: filepath.Join(dir, "admin.sock"),
		Listeners: []*listenerv3.Listener{{
			Name: "mesh", Address: envoy.PipeAddress(filepath.Join(dir, "mesh.sock")),
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
				envoy.PeerLimit(), envoy.NetworkFilter("envoy.filters.network.echo", &echov3.Echo{}),
			}}},
		}},
	})
	// Nobody serves configuration here, so it must not wait for any.
	b.DynamicResources, b.LayeredRuntime = nil, nil
	config, err := bootstrap.Marshal(b)
	require.NoError(t, err)
	file := filepath.Join(dir, "envoy.json")
	require.NoError(t, os.WriteFile(file, config, 0o600))
	cmd := exec.Command(binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
	ended, err := xdstest.StartTied(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return dir
}
