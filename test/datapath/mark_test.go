// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// raw dials as a process of the pod that has CAP_NET_RAW and sets options of SOL_SOCKET.
func (p *pod) raw(to string, options map[int]uint32) (string, error) {
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			for name, value := range options {
				set = errors.Join(set, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, name, int(value)))
			}
		})
		return errors.Join(err, set)
	}}
	var c net.Conn
	if err := p.ns.Do(func() (err error) {
		if err := netnstest.OnlyRaw(); err != nil {
			return err
		}
		c, err = d.Dial("tcp", to)
		return err
	}); err != nil {
		return "", err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return helloOver(c)
}

// TestNobodyLeavesTheMeshByTheMark has a process of a member that sets the mark of the proxy's connections, as far as
// it knows it. What it can look at tells it nothing. A strict pod answers only what came through the mesh, and the mesh
// refuses an address that it doesn't know.
func TestNobodyLeavesTheMeshByTheMark(t *testing.T) {
	m := newMesh(t)
	client, server, outside := m.nodes[0].newMember("client", false), m.nodes[1].newMember("server", true),
		m.nodes[1].newPod("outside")
	client.greet(8080)
	server.greet(8080)
	outside.greet(8080)
	server.workload(8080)
	ours, theirs := netnstest.Watch(t, client.ns), netnstest.Watch(t, server.ns)
	for name, options := range map[string]map[int]uint32{
		"nothing":              {},
		"that of old versions": {unix.SO_MARK: names.MarkProxy},
		"another node's":       {unix.SO_MARK: server.node.mark.Mark(), unix.SO_PRIORITY: server.node.mark.Priority()},
	} {
		have, err := client.raw(server.at(8080).String(), options)
		require.NoError(t, err, name)
		require.Equal(t, "server sees "+client.addr.String(), have, name)
		_, err = client.raw(outside.at(8080).String(), options)
		require.Error(t, err, name)
	}
	proxy := map[int]uint32{unix.SO_MARK: client.node.mark.Mark(), unix.SO_PRIORITY: client.node.mark.Priority()}
	have, err := client.raw(outside.at(8080).String(), proxy)
	require.NoError(t, err, "with the mark it would")
	require.Equal(t, "outside sees "+client.addr.String(), have)
	requireHello(t, outside, client.at(8080).String(), "client sees "+outside.addr.String())

	for n, seen := range map[*meshNode][]netnstest.Packet{client.node: ours(), server.node: theirs()} {
		require.NotEmpty(t, seen)
		for _, p := range seen {
			require.NotEqual(t, n.mark.Mark(), p.Mark, "from port %d to %d", p.Source, p.Destination)
			require.NotEqual(t, n.mark.Priority(), p.Priority, "from port %d to %d", p.Source, p.Destination)
		}
	}
}
