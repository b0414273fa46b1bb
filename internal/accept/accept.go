// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package accept bounds what a server of the operator takes before it knows who asks: connections in all and of one
// address, and how often one may ask, so that nobody who can reach its port can fill it for the others.
package accept

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/netutil"
)

const (
	// MaxConnections in all: the agents of some thousand nodes, spread over the replicas.
	MaxConnections = 8192
	// MaxPerPeer leaves room for a node's own agent and all the waypoints on it, where the cluster's network gives their
	// connections the node's address.
	MaxPerPeer = 256
)

// Limit is the listener with these bounds. A connection beyond an address's share is closed at once; beyond the bound
// for all, connections wait.
func Limit(l net.Listener, all, perPeer int) net.Listener {
	return netutil.LimitListener(&listener{Listener: l, most: perPeer, open: map[netip.Addr]int{}}, all)
}

type listener struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[netip.Addr]int // no entry where there is none
}

// Accept waits for a connection whose peer has some of its share left.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := Address(c.RemoteAddr().String())
		if l.take(peer) {
			return &conn{Conn: c, closed: sync.OnceFunc(func() { l.giveBack(peer) })}, nil
		}
		c.Close()
	}
}

func (l *listener) take(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[peer] >= l.most {
		return false
	}
	l.open[peer]++
	return true
}

func (l *listener) giveBack(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[peer]--; l.open[peer] <= 0 {
		delete(l.open, peer)
	}
}

// Address of a peer that is written with its port; those that have none share one.
func Address(peer string) netip.Addr {
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

type conn struct {
	net.Conn
	closed func()
}

// Close gives the peer's share back, once.
func (c *conn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
