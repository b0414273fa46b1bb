// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestDeadPeersAreNoticed: a peer that went without a word, such as one whose node lost its power, is found by the
// proxies: nothing else would find it, since what applications ask of TCP ends at the proxy beside them.
func TestDeadPeersAreNoticed(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	plain := m.nodes[1].newPod("plain")
	for _, p := range []*pod{server, plain} {
		p.greet(8080)
	}
	server.workload(8080)
	m.destination(model.Destination{Address: plain.at(8080), Kind: model.DestinationPassthrough})
	client.session(server.at(8080).String()).alive()
	client.session(plain.at(8080).String()).alive()
	plain.session(server.at(8080).String()).alive()

	toPlain := func(s *netlink.Socket) bool { return s.ID.Destination.Equal(plain.addr.AsSlice()) }
	requireKeptAlive(t, client, "mTLS that goes out",
		func(s *netlink.Socket) bool { return s.ID.DestinationPort == names.PortMTLS })
	requireKeptAlive(t, server, "mTLS that comes in",
		func(s *netlink.Socket) bool { return s.ID.SourcePort == names.PortMTLS })
	requireKeptAlive(t, client, "plain text that goes out", toPlain)
	requireKeptAlive(t, server, "plain text that comes in", toPlain)
}

// requireKeptAlive: the kernel asks now and then whether the other end of a pod's idle connection is there.
func requireKeptAlive(t *testing.T, p *pod, what string, which func(*netlink.Socket) bool) {
	const established, keepalive = 1, 2 // of tcp_states.h and of inet_diag.h
	t.Helper()
	eventually.NoError(t, what, func() error { // the timer is another one while something is to be acknowledged
		var all []*netlink.Socket
		err := p.ns.Do(func() (err error) {
			all, err = netlink.SocketDiagTCP(unix.AF_INET)
			return err
		})
		all = slices.DeleteFunc(all, func(s *netlink.Socket) bool { return s.State != established || !which(s) })
		require.True(t, err != nil || len(all) > 0, what)
		// Applications that Go's library made ask themselves; the proxy's socket is to the same address.
		if err == nil && slices.ContainsFunc(all, func(s *netlink.Socket) bool { return s.Timer != keepalive }) {
			err = errors.New(what + ": nobody would notice that the other end is dead")
		}
		return err
	})
}

// TestWhoDoesntReadCostsLittle: connections whose reader stalls hold little of the proxies' memory, or a pod that opens
// some thousands would close its node and the server's to everybody.
func TestWhoDoesntReadCostsLittle(t *testing.T) {
	const connections, most = 200, 256 << 10
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	server.workload(8080)
	l := server.listen(8080)
	open := func() net.Conn {
		c, err := client.dial(server.at(8080).String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		s, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	open()
	var before [2]int
	for i, n := range m.nodes {
		before[i] = n.proxy.resident()
	}
	stalled := make(chan error, connections)
	for range connections {
		s := open()
		go func() {
			var err error
			for b := make([]byte, 1<<20); err == nil; {
				_ = s.SetWriteDeadline(time.Now().Add(time.Second))
				_, err = s.Write(b)
			}
			stalled <- err
		}()
	}
	for range connections {
		require.ErrorIs(t, <-stalled, os.ErrDeadlineExceeded)
	}
	for i, n := range m.nodes {
		require.Less(t, (n.proxy.resident()-before[i])<<10, connections*most, n.name)
	}
}
