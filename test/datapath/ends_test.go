// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/fairway-mesh/fairway/test/streamtest"
)

// slowReader is an application that takes no more than so many bytes a second.
type slowReader struct {
	r io.Reader
	l *rate.Limiter
}

const slowPiece = 64 << 10

func slow(r io.Reader, perSecond int) slowReader {
	return slowReader{r, rate.NewLimiter(rate.Limit(perSecond), slowPiece)}
}

func (s slowReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), slowPiece)])
	_ = s.l.WaitN(context.Background(), n)
	return n, err
}

// sizes of what is sent before an end: nothing, less and more than any buffer on the way.
var sizes = []int{0, 1, 100 << 10, 1 << 20, 3 << 20, 20 << 20, 64 << 20}

// connected are both ends of a new connection that goes one of the ways.
func (w way) connected(t *testing.T, l *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	c, err := w.from.dial(w.address.String())
	require.NoError(t, err)
	require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
	s, err := l.AcceptTCP()
	require.NoError(t, err)
	for _, c := range []*net.TCPConn{c, s} {
		require.NoError(t, c.SetDeadline(time.Now().Add(2*patience)))
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, s
}

// TestEnds: what one side sends before it closes its own arrives whole, however slowly the other side takes it; and
// what the other side sends after that arrives, too.
func TestEnds(t *testing.T) {
	for name, way := range everyWay(t) {
		t.Run(name, func(t *testing.T) {
			l := way.to.listen(7000)
			defer l.Close()
			for _, first := range []string{"client", "server"} {
				for _, size := range sizes {
					t.Run(fmt.Sprintf("%s first, %d bytes", first, size), func(t *testing.T) {
						closer, reader := way.connected(t, l)
						if first == "server" {
							closer, reader = reader, closer
						}
						require.NoError(t, streamtest.WholeEnd(closer, reader, size, func(r io.Reader) io.Reader {
							return slow(r, 100<<20)
						}))
					})
				}
			}
		})
	}
}

// TestStalledReaders: who doesn't read for a while loses nothing by it.
func TestStalledReaders(t *testing.T) {
	const size, taken, pause = 8 << 20, 1 << 20, 2 * time.Second // longer than Envoy waits anywhere by default
	var g errgroup.Group
	clients := map[string]*net.TCPConn{}
	for name, way := range everyWay(t) {
		l := way.to.listen(7000)
		client, server := way.connected(t, l)
		_ = l.Close() // two ways lead to one pod
		g.Go(func() error {
			defer server.Close()
			_, err := io.Copy(server, streamtest.Random(size))
			return err
		})
		_, err := io.ReadFull(client, make([]byte, taken))
		require.NoError(t, err, name)
		clients[name] = client
	}
	<-time.After(pause)
	for name, client := range clients {
		n, err := io.Copy(io.Discard, client)
		require.NoError(t, err, name)
		require.EqualValues(t, size-taken, n, name)
	}
	require.NoError(t, g.Wait())
}

// TestCuts: a connection that is cut never looks like one that ended.
func TestCuts(t *testing.T) {
	for name, way := range everyWay(t) {
		t.Run(name, func(t *testing.T) {
			l := way.to.listen(7000)
			defer l.Close()
			for _, size := range []int{0, 100 << 10, 3 << 20, 20 << 20} {
				for _, who := range []string{"client", "server"} {
					t.Run(fmt.Sprintf("%s, after %d bytes", who, size), func(t *testing.T) {
						cutter, other := way.connected(t, l)
						if who == "server" {
							cutter, other = other, cutter
						}
						// Both ends stand before anything is cut.
						for _, c := range []*net.TCPConn{cutter, other} {
							_, err := c.Write([]byte{0})
							require.NoError(t, err)
						}
						for _, c := range []*net.TCPConn{cutter, other} {
							_, err := io.ReadFull(c, make([]byte, 1))
							require.NoError(t, err)
						}
						go func() {
							_, _ = io.Copy(cutter, streamtest.Random(size))
							_ = cutter.SetLinger(0)
							_ = cutter.Close()
						}()
						n, err := io.Copy(io.Discard, slow(other, 100<<20))
						require.True(t, errors.Is(err, syscall.ECONNRESET), "after %d bytes of %d: %v", n, size, err)
					})
				}
			}
		})
	}
}

// TestEndsFindRoom: streams end where the kernel gives sockets little room, too. Envoy writes the end of TLS's stream
// once, and never if its socket is full just then; which, with so little room, would be of every twentieth stream.
func TestEndsFindRoom(t *testing.T) {
	const streams, size, little = 200, 1 << 20, "4096 16384 65536"
	m := newMesh(t)
	w := ways(t, m)["mTLS to another node"]
	for _, p := range []*pod{w.from, w.to} {
		require.NoError(t, p.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_wmem", []byte(little), 0) }))
	}
	l := w.to.listen(7000)
	defer l.Close()
	for _, first := range []string{"client", "server"} {
		t.Run(first+" first", func(t *testing.T) {
			for n := range streams {
				client, server := w.connected(t, l)
				closer, reader := client, server
				if first == "server" {
					closer, reader = reader, closer
				}
				err := streamtest.WholeEnd(closer, reader, size, iotest.HalfReader)
				require.NoError(t, err, "stream %d", n)
				_, _ = client.Close(), server.Close()
			}
		})
	}
}
