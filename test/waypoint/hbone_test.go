// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

var errWrongPeer = errors.New("the peer has another identity")

// tunnel is a CONNECT stream as a connection.
type tunnel struct {
	io.ReadCloser
	w *io.PipeWriter
}

func (c tunnel) Write(p []byte) (int, error)    { return c.w.Write(p) }
func (c tunnel) CloseWrite() error              { return c.w.Close() }
func (c tunnel) Close() error                   { _ = c.w.CloseWithError(net.ErrClosed); return c.ReadCloser.Close() }
func (tunnel) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (tunnel) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (tunnel) SetDeadline(time.Time) error      { return nil }
func (tunnel) SetReadDeadline(time.Time) error  { return nil }
func (tunnel) SetWriteDeadline(time.Time) error { return nil }

// caller speaks HBONE to the waypoint as the node proxy of a client pod would.
type caller struct {
	address  netip.Addr
	waypoint netip.AddrPort
	h2       *http.Transport
	header   http.Header // of each CONNECT
}

func newCaller(t testing.TB, address, waypoint netip.Addr, c *tls.Config) *caller {
	c.NextProtos = []string{"h2"}
	c.MinVersion = tls.VersionTLS13
	c.InsecureSkipVerify = true // names are no host names; VerifyConnection checks the identity
	dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0))}
	p := &caller{header: http.Header{}, address: address, waypoint: netip.AddrPortFrom(waypoint, names.PortHBONE), h2: &http.Transport{
		Protocols: http2Only(),
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&tls.Dialer{NetDialer: dialer, Config: c}).DialContext(ctx, network, addr)
		},
	}}
	t.Cleanup(p.h2.CloseIdleConnections)
	return p
}

// refusedError is a CONNECT that was answered with a status other than 200.
type refusedError int

func (e refusedError) Error() string { return fmt.Sprintf("CONNECT: status %d", int(e)) }

// dial opens a tunnel to an address that the application dials.
func (p *caller) dial(ctx context.Context, dialled string) (tunnel, error) {
	r, w := io.Pipe()
	req := (&http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Scheme: "https", Host: p.waypoint.String()},
		Host:   dialled,
		Header: p.header.Clone(),
		Body:   r,
	}).WithContext(ctx)
	resp, err := p.h2.RoundTrip(req)
	if err != nil {
		return tunnel{}, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return tunnel{}, refusedError(resp.StatusCode)
	}
	return tunnel{ReadCloser: resp.Body, w: w}, nil
}

// client is an HTTP client whose connections all go to one dialled address, and which follows no redirect.
func (p *caller) client(t testing.TB, dialled string, protocols *http.Protocols) *http.Client {
	// The tunnel outlives the request that opened it.
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(context.Background(), dialled) },
		Protocols:   protocols,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
}

// pod takes HBONE at its address with an identity and passes it on to its port, as a node proxy would.
type pod struct {
	address netip.AddrPort // of the application
	tunnels atomic.Int64   // ever opened
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
}

// newPod starts the HBONE side of a pod; only the waypoint may connect.
func newPod(t testing.TB, address netip.AddrPort, cert tls.Certificate, verify func(tls.ConnectionState) error) *pod {
	t.Helper()
	p := &pod{address: address, conns: map[net.Conn]struct{}{}}
	l, err := net.Listen("tcp", netip.AddrPortFrom(address.Addr(), names.PortHBONE).String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: p, Protocols: http2Only(), ConnState: p.track,
		ErrorLog: log.New(io.Discard, "", 0), // refused handshakes are what some tests want
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequireAnyClientCert, VerifyConnection: verify,
		},
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	return p
}

func http2Only() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP2(true)
	return p
}

// connections is how many HBONE connections are open.
func (p *pod) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *pod) track(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateActive:
		p.conns[c] = struct{}{}
	case http.StateClosed:
		delete(p.conns, c)
	default:
	}
}

// ServeHTTP serves one CONNECT.
func (p *pod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Host != p.address.String() {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	p.tunnels.Add(1)
	up, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer func() { _ = up.Close() }()
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	go func() {
		_, _ = io.Copy(up, r.Body)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := up.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}
