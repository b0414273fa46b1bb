// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
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

// random are the first bytes of an endless stream that is always the same.
func random(size int) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), int64(size)) }

// sums reads to the end and returns how much there was, with its checksum.
func sums(r io.Reader) (int64, [sha256.Size]byte, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return n, [sha256.Size]byte(h.Sum(nil)), err
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

// TestEnds: what one side sends before it closes its own arrives whole, however slowly the other side takes it; and what the
// other side sends after that arrives, too.
func TestEnds(t *testing.T) {
	m := newMesh(t)
	for name, way := range ways(t, m) {
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
						ends(t, closer, reader, size)
					})
				}
			}
		})
	}
}

// ends has one side send size bytes and close its own side, and the other read slowly, talk meanwhile, and close last.
func ends(t *testing.T, closer, reader *net.TCPConn, size int) {
	t.Helper()
	const talk = 1000
	_, want, _ := sums(random(size))
	var g errgroup.Group
	g.Go(func() error {
		if _, err := io.Copy(closer, random(size)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return closer.CloseWrite()
	})
	g.Go(func() error {
		n, err := io.Copy(io.Discard, closer)
		if err == nil && n != talk {
			err = fmt.Errorf("%d bytes of %d arrive at the side that closed first", n, talk)
		}
		return err
	})
	g.Go(func() error {
		for range talk / 2 {
			if _, err := reader.Write([]byte{0}); err != nil {
				return fmt.Errorf("talk: %w", err)
			}
		}
		n, have, err := sums(slow(reader, 100<<20))
		if err != nil || have != want {
			return fmt.Errorf("%d bytes of %d arrive: %w", n, size, err)
		}
		if _, err := reader.Write(make([]byte, talk/2)); err != nil {
			return fmt.Errorf("talk after the end: %w", err)
		}
		return reader.CloseWrite()
	})
	require.NoError(t, g.Wait())
}

// TestStalledReaders: who doesn't read for a while loses nothing by it.
func TestStalledReaders(t *testing.T) {
	const size, taken, pause = 8 << 20, 1 << 20, 2 * time.Second // longer than Envoy waits anywhere by default
	m := newMesh(t)
	var g errgroup.Group
	clients := map[string]*net.TCPConn{}
	for name, way := range ways(t, m) {
		l := way.to.listen(7000)
		client, server := way.connected(t, l)
		_ = l.Close() // two ways lead to one pod
		g.Go(func() error {
			defer server.Close()
			_, err := io.Copy(server, random(size))
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
	m := newMesh(t)
	for name, way := range ways(t, m) {
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
							_, _ = io.Copy(cutter, random(size))
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
