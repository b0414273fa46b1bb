// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/test/streamtest"
)

// stalled is an application that takes the first bytes, nothing for a while, and then the rest in small pieces.
type stalled struct {
	r     io.Reader
	pause time.Duration
	begun bool
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.begun {
		<-time.After(s.pause)
		s.pause = 0
	}
	s.begun = true
	return s.r.Read(p[:min(len(p), 16<<10)])
}

// pauses of readers: none, and longer than Envoy waits anywhere by default.
var pauses = []time.Duration{0, 1500 * time.Millisecond}

// inAndOut are backends whose applications do the same, one in the mesh and one outside of it.
func (w *world) inAndOut(protocol model.Protocol, serve func(*net.TCPConn)) map[string]model.ServicePort {
	in := model.ServicePort{Namespace: "shop", Service: "in", Port: 80}
	out := model.ServicePort{Namespace: "shop", Service: "out", Port: 80}
	e, _ := w.inMesh(appID, w.listen(serve))
	w.backend(in, protocol, e)
	w.backend(out, protocol, model.Endpoint{Address: w.listen(serve)})
	return map[string]model.ServicePort{"in the mesh": in, "outside": out}
}

// served serves a port of HTTP, and waits until a worker of Envoy takes connections to it: each takes a listener by
// itself, a moment after it was acknowledged, and resets until then what it has no filter chain for.
func (w *world) served(p model.ServicePort) string {
	w.t.Helper()
	dialled := w.serve(p, true, nil)
	eventually.NoError(w.t, "connections to "+dialled, func() error {
		c, err := w.caller(clientID).dial(w.t.Context(), dialled)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return dialled
}

// TestTCPEnds: what one side sends before it closes its own arrives whole, however late the other side takes it; and
// what the other side sends after that arrives, too.
func TestTCPEnds(t *testing.T) {
	w := newWorld(t)
	accepted, done := make(chan *net.TCPConn), make(chan struct{})
	defer close(done)
	for name, p := range w.inAndOut(model.ProtocolTCP, func(c *net.TCPConn) { accepted <- c; <-done }) {
		dialled := w.serve(p, false, nil)
		for _, first := range []string{"client", "server"} {
			t.Run(name+", "+first+" first", func(t *testing.T) {
				var g errgroup.Group
				for _, size := range []int{0, 1, 100 << 10, 1 << 20, 3 << 20, 20 << 20} {
					for _, pause := range pauses {
						c, err := w.caller(clientID).dial(t.Context(), dialled)
						require.NoError(t, err)
						var closer, reader streamtest.HalfCloser = c, <-accepted
						if first == "server" {
							closer, reader = reader, closer
						}
						g.Go(func() error {
							if err := wholeEnd(closer, reader, size, pause); err != nil {
								return fmt.Errorf("%d bytes, a pause of %s: %w", size, pause, err)
							}
							return nil
						})
					}
				}
				require.NoError(t, g.Wait())
			})
		}
	}
}

// wholeEnd is streamtest.WholeEnd with a pause in reading.
func wholeEnd(closer, reader streamtest.HalfCloser, size int, pause time.Duration) error {
	for _, c := range []net.Conn{closer, reader} {
		_ = c.SetDeadline(time.Now().Add(patience))
		defer func() { _ = c.Close() }()
	}
	return streamtest.WholeEnd(closer, reader, size, func(r io.Reader) io.Reader { return &stalled{r: r, pause: pause} })
}

// TestTCPCuts: a connection that one side cuts is cut for the other, too, and never looks like one that ended.
func TestTCPCuts(t *testing.T) {
	w := newWorld(t)
	accepted, done := make(chan *net.TCPConn), make(chan struct{})
	defer close(done)
	for name, p := range w.inAndOut(model.ProtocolTCP, func(c *net.TCPConn) { accepted <- c; <-done }) {
		dialled := w.serve(p, false, nil)
		for _, who := range []string{"client", "server"} {
			for _, size := range []int{0, 100 << 10, 3 << 20, 20 << 20} {
				t.Run(fmt.Sprintf("%s, %s, after %d bytes", name, who, size), func(t *testing.T) {
					c, err := w.caller(clientID).dial(t.Context(), dialled)
					require.NoError(t, err)
					server := <-accepted
					var cutter, other net.Conn = c, server
					if who == "server" {
						cutter, other = server, c
					}
					// Both ends stand before anything is cut.
					for _, c := range []net.Conn{cutter, other} {
						_ = c.SetDeadline(time.Now().Add(patience))
						_, err := c.Write([]byte{0})
						require.NoError(t, err)
					}
					for _, c := range []net.Conn{cutter, other} {
						_, err := io.ReadFull(c, make([]byte, 1))
						require.NoError(t, err)
					}
					go func() {
						_, _ = io.Copy(cutter, streamtest.Random(size))
						if cutter == net.Conn(c) {
							cut(c.NetConn())
						} else {
							cut(cutter)
						}
					}()
					n, err := io.Copy(io.Discard, other)
					require.ErrorIs(t, err, syscall.ECONNRESET, "after %d bytes of %d", n, size)
				})
			}
		}
	}
}

// TestAnswersThatAreCut: an answer that is cut does not look like a whole one, unless nothing but the end of a
// connection tells where it ends, on either side of the waypoint: that Envoy takes for the end of the answer, however
// it came.
func TestAnswersThatAreCut(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.inAndOut(model.ProtocolHTTP, func(c *net.TCPConn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answerHeads[r.URL.Path])
			_, _ = io.Copy(c, streamtest.Random(answerSize/2))
		}
		cut(c)
	}) {
		dialled := w.served(p)
		w.hurry()
		for _, asked := range []string{"/length HTTP/1.0", "/length HTTP/1.1", "/chunked HTTP/1.1"} {
			t.Run(name+", "+asked, func(t *testing.T) {
				c, err := w.caller(clientID).dial(t.Context(), dialled)
				require.NoError(t, err)
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = fmt.Fprintf(c, "GET %s\r\nHost: web\r\n\r\n", asked)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.Error(t, err)
			})
		}
	}
}

// answerSize is how long an answer is; answerHeads are the ways to say so, by the path that is asked for.
const answerSize = 20 << 20

var answerHeads = map[string]string{
	"/length":  fmt.Sprintf("Content-Length: %d\r\n\r\n", answerSize),
	"/chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", answerSize),
	"/end":     "\r\n",
}

// TestAnswersThatClose: an answer arrives whole, however late it is taken, also where the connection ends with it.
func TestAnswersThatClose(t *testing.T) {
	w := newWorld(t)
	_, want, _ := streamtest.Sums(streamtest.Random(answerSize))
	for name, p := range w.inAndOut(model.ProtocolHTTP, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n"+answerHeads[r.URL.Path])
		_, _ = io.Copy(c, streamtest.Random(answerSize))
		if r.URL.Path == "/chunked" {
			_, _ = io.WriteString(c, "\r\n0\r\n\r\n")
		}
	}) {
		dialled := w.served(p)
		t.Run(name, func(t *testing.T) {
			var g errgroup.Group
			g.SetLimit(6)
			for path := range answerHeads {
				for _, version := range []string{"1.0", "1.1"} {
					for _, pause := range pauses {
						g.Go(func() error {
							c, err := w.caller(clientID).dial(t.Context(), dialled)
							if err != nil {
								return err
							}
							defer func() { _ = c.Close() }()
							_ = c.SetDeadline(time.Now().Add(patience))
							_, _ = fmt.Fprintf(c, "GET %s HTTP/%s\r\nHost: web\r\nConnection: close\r\n\r\n", path, version)
							what := fmt.Sprintf("%s, HTTP/%s, a pause of %s", path, version, pause)
							resp, err := http.ReadResponse(bufio.NewReader(&stalled{r: c, pause: pause}), nil)
							if err != nil {
								return fmt.Errorf("%s: %w", what, err)
							}
							if n, have, err := streamtest.Sums(resp.Body); err != nil || have != want {
								return fmt.Errorf("%s: %d bytes of %d arrive: %w", what, n, answerSize, err)
							}
							return nil
						})
					}
				}
			}
			require.NoError(t, g.Wait())
		})
	}
}
