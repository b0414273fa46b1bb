// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/test/streamtest"
)

// TestWhoWaitsHears: a side that waits for the other to read hears that it is gone, and its connection goes.
func TestWhoWaitsHears(t *testing.T) {
	w := newWorld(t)
	accepted, done := make(chan *net.TCPConn), make(chan struct{})
	defer close(done)
	for name, p := range w.inAndOut(model.ProtocolTCP, func(c *net.TCPConn) {
		accepted <- c
		<-done
	}) {
		dialled := w.serve(p, false, nil)
		before := w.descriptors()
		for _, gone := range []string{"client", "server"} {
			c, err := w.caller(clientID).dial(t.Context(), dialled)
			require.NoError(t, err)
			s := <-accepted
			_ = c.SetDeadline(time.Now().Add(patience))
			_ = s.SetDeadline(time.Now().Add(patience))
			var goes, waits net.Conn = s, c
			if gone == "client" {
				goes, waits = c.NetConn(), s
			}
			time.AfterFunc(hurried, func() { _ = goes.Close() })
			_, err = io.Copy(waits, streamtest.Random(64<<20))
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s: the other side of the %s waits for ever", name, gone)
			_ = waits.Close()
		}
		eventually.True(w.t, name+": connections of peers that are gone to end", func() bool {
			return w.descriptors() <= before
		})
	}
}

// TestEarlyAnswers: an answer to a request that has not ended arrives, and the connection of a caller that is gone
// ends.
func TestEarlyAnswers(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.inAndOut(model.ProtocolHTTP, func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, in)
		}
	}) {
		dialled := w.serve(p, true, nil)
		w.hurry()
		before := w.descriptors()
		for range 10 {
			c, err := w.caller(clientID).dial(t.Context(), dialled)
			require.NoError(t, err)
			require.Equal(t, "413 large", uploaded(t, c), name)
		}
		eventually.True(w.t, name+": connections of callers that are gone to end", func() bool {
			return w.descriptors() <= before
		})
	}
}

// uploaded is the answer to a large request, of which the caller goes on sending until it has the answer.
func uploaded(t *testing.T, c *tls.Conn) string {
	t.Helper()
	const size = 20 << 20
	_ = c.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n", size)
		_, _ = io.Copy(c, streamtest.Random(size))
	}()
	resp, got := answerTo(t, bufio.NewReader(c))
	_ = c.NetConn().Close()
	<-sent
	return fmt.Sprint(resp.StatusCode, " ", got)
}

// descriptors that Envoy has open, but for Unix sockets: each of its threads has one to its agent, once it has
// something to tell.
func (w *world) descriptors() (n int) {
	w.t.Helper()
	unix, err := os.ReadFile("/proc/net/unix")
	require.NoError(w.t, err)
	inodes := map[string]bool{}
	for line := range strings.Lines(string(unix)) {
		if fields := strings.Fields(line); len(fields) > 6 {
			inodes["socket:["+fields[6]+"]"] = true
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd/", w.pid)
	open, err := os.ReadDir(dir)
	require.NoError(w.t, err)
	for _, fd := range open {
		if to, err := os.Readlink(dir + fd.Name()); err == nil && !inodes[to] {
			n++
		}
	}
	return n
}
