// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

var errWrongPeer = errors.New("the peer has another identity")

// caller speaks mTLS to the waypoint as the node proxy of a client pod would.
type caller struct {
	address  netip.Addr
	waypoint netip.AddrPort
	config   *tls.Config
}

func newCaller(t testing.TB, address, waypoint netip.Addr, c *tls.Config) *caller {
	t.Helper()
	c.MinVersion = tls.VersionTLS13
	c.InsecureSkipVerify = true // names are no host names; VerifyConnection checks the identity
	return &caller{address: address, waypoint: netip.AddrPortFrom(waypoint, names.PortMTLS), config: c}
}

// dial opens a connection to what a server name stands for. A waypoint that refuses ends it after the handshake.
func (p *caller) dial(ctx context.Context, serverName string) (*tls.Conn, error) {
	config := p.config.Clone()
	config.ServerName = serverName
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.address, 0))},
		Config:    config,
	}
	c, err := dialer.DialContext(ctx, "tcp", p.waypoint.String())
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// client is an HTTP client whose connections all go to one server name, and which follows no redirect.
func (p *caller) client(t testing.TB, serverName string, protocols *http.Protocols) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, serverName) },
		Protocols:   protocols,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
}

// pod takes mTLS at its address with an identity and passes it on to its port, as a node proxy would.
type pod struct {
	address netip.AddrPort // of the application
	// opened counts the connections that ever came, open those that are there.
	opened, open atomic.Int64
}

// newPod starts the mTLS side of a pod; only the waypoint may connect.
func newPod(t testing.TB, address netip.AddrPort, cert tls.Certificate, verify func(tls.ConnectionState) error) *pod {
	t.Helper()
	p := &pod{address: address}
	l, err := tls.Listen("tcp", netip.AddrPortFrom(address.Addr(), names.PortMTLS).String(), &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: verify,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c.(*tls.Conn))
		}
	}()
	return p
}

// serve carries one connection to the port that it asks for. What is cut at one end is cut at the other.
func (p *pod) serve(c *tls.Conn) {
	defer func() { _ = c.Close() }()
	if c.Handshake() != nil {
		return
	}
	port, err := strconv.ParseUint(c.ConnectionState().ServerName, 10, 16)
	if err != nil {
		return
	}
	p.opened.Add(1)
	p.open.Add(1)
	defer p.open.Add(-1)
	up, err := net.Dial("tcp", netip.AddrPortFrom(p.address.Addr(), uint16(port)).String())
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	down := make(chan struct{})
	go func() {
		defer close(down)
		_, err := io.Copy(c, up)
		if errors.Is(err, syscall.ECONNRESET) {
			cut(c.NetConn())
		}
		_ = c.CloseWrite()
	}()
	_, err = io.Copy(up, c)
	if err != nil {
		cut(up)
		return
	}
	_ = up.(*net.TCPConn).CloseWrite()
	<-down
}

// cut ends a connection by a reset.
func cut(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
