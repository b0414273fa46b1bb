// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// Backend answers every request with its name, on the port that it returns.
func Backend(t testing.TB, name string) int {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	answer := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }
	srv := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: eventually.Patience}
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(func() { _ = srv.Close() })
	return lis.Addr().(*net.TCPAddr).Port
}

// lastPort that FreePort gave. Processes begin at different ones.
var lastPort atomic.Int32

func init() { lastPort.Store(int32(os.Getpid() * 101 % (ephemeralPorts - firstPort))) }

const firstPort, ephemeralPorts = 10000, 32768

// FreePort of the loopback address, for a program to listen on. It isn't one of those that the kernel gives to whoever
// connects or doesn't say which: another test would have it before the program does.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := firstPort + int(lastPort.Add(1))%(ephemeralPorts-firstPort)
		lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			require.NoError(t, lis.Close())
			return port
		}
	}
	t.Fatalf("no free port between %d and %d", firstPort, ephemeralPorts)
	return 0
}

// Fetch asks a port over a connection of its own, and tells status and body, or what went wrong.
func Fetch(port int) string {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: eventually.Patience}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}
