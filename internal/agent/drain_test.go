// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// A proxy without connections is drained as soon as callers have heard of it; one with some when the last is gone, or
// the time is up.
func TestDrainEndsWithTheLastConnection(t *testing.T) {
	var connections atomic.Int32
	var asked atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("POST /healthcheck/fail", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /drain_listeners", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = fmt.Fprintf(w, "connection_limit.mtls.active_connections: %d\n", connections.Load())
	})
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { require.NoError(t, server.Close()) })

	const long = time.Minute
	began := time.Now()
	require.NoError(t, drain(t.Context(), socket, long, time.Millisecond))
	require.Less(t, time.Since(began), 10*time.Second, "idle")

	connections.Store(1)
	done := make(chan error, 1)
	go func() { done <- drain(t.Context(), socket, long, time.Millisecond) }()
	was := asked.Load()
	eventually.True(t, "the drain asks for connections", func() bool { return asked.Load() > was })
	require.Empty(t, done, "a connection is left")
	connections.Store(0)
	require.NoError(t, <-done)

	connections.Store(1)
	require.NoError(t, drain(t.Context(), socket, 20*time.Millisecond, time.Millisecond), "the time is up")
}
