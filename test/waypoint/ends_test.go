// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

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

// TestTCPEnds: what one side sends before it closes its own arrives whole, however late the other side takes it; and what
// the other side sends after that arrives, too.
func TestTCPEnds(t *testing.T) {
	w := newWorld(t)
	accepted, done := make(chan *net.TCPConn), make(chan struct{})
	defer close(done)
	for name, p := range w.inAndOut(model.ProtocolTCP, func(c *net.TCPConn) { accepted <- c; <-done }) {
		dialled := w.serve(p, model.ProtocolTCP, false, nil)
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

// TestAnswersThatClose: an answer arrives whole, however late it is taken, also where the connection ends with it.
func TestAnswersThatClose(t *testing.T) {
	w := newWorld(t)
	const size = 20 << 20
	heads := map[string]string{
		"/length":  fmt.Sprintf("Content-Length: %d\r\n\r\n", size),
		"/chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size),
		"/end":     "\r\n",
	}
	_, want, _ := streamtest.Sums(streamtest.Random(size))
	for name, p := range w.inAndOut(model.ProtocolHTTP, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n"+heads[r.URL.Path])
		_, _ = io.Copy(c, streamtest.Random(size))
		if r.URL.Path == "/chunked" {
			_, _ = io.WriteString(c, "\r\n0\r\n\r\n")
		}
	}) {
		dialled := w.serve(p, model.ProtocolHTTP, true, nil)
		t.Run(name, func(t *testing.T) {
			var g errgroup.Group
			g.SetLimit(6)
			for path := range heads {
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
								return fmt.Errorf("%s: %d bytes of %d arrive: %w", what, n, size, err)
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
