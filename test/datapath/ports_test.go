// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPortsStayTheApplications has connections come in by each way, some of them open and some closed by either end,
// and then an application that listens on each port from which the proxy has connected. Ports of the ephemeral range
// are as good as any other.
func TestPortsStayTheApplications(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	outsider := m.nodes[0].newPod("outsider")
	server := m.nodes[1].newMember("server", false)
	server.workload(8080)
	l := server.listen(8080)
	accept := func(from *pod) (client, accepted *net.TCPConn) {
		t.Helper()
		client, err := from.dial(server.at(8080).String())
		require.NoError(t, err)
		_, err = client.Write([]byte("x"))
		require.NoError(t, err)
		accepted, err = l.AcceptTCP()
		require.NoError(t, err)
		t.Cleanup(func() { _, _ = client.Close(), accepted.Close() })
		return client, accepted
	}
	ended := func(c *net.TCPConn) {
		t.Helper()
		_, err := c.Read(make([]byte, 2))
		for err == nil {
			_, err = c.Read(make([]byte, 2))
		}
		require.NoError(t, c.Close())
	}
	ports := map[string]int{}
	for name, from := range map[string]*pod{"mTLS": client, "plain text": outsider} {
		_, a := accept(from)
		ports[name+", open"] = a.RemoteAddr().(*net.TCPAddr).Port
		c, a := accept(from)
		ports[name+", closed by the client"] = a.RemoteAddr().(*net.TCPAddr).Port
		require.NoError(t, c.Close())
		ended(a)
		c, a = accept(from)
		ports[name+", closed by the server"] = a.RemoteAddr().(*net.TCPAddr).Port
		require.NoError(t, a.Close())
		ended(c)
	}
	require.NoError(t, l.Close())
	for name, port := range ports {
		require.NoError(t, server.ns.Do(func() error {
			own, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if assert.NoError(t, err, name) {
				return own.Close()
			}
			return nil
		}))
	}
}
