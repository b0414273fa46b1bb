// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// Tests of what works between a client and a server by themselves, and so must through a waypoint.

// raw is a connection to a dialled address, on which each read is up within a time.
func raw(t *testing.T, caller *caller, dialled string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	c, err := caller.dial(t.Context(), dialled)
	require.NoError(t, err)
	stop := time.AfterFunc(20*time.Second, func() { _ = c.Close() })
	t.Cleanup(func() { stop.Stop(); _ = c.Close() })
	return c, bufio.NewReader(c)
}

// answerTo reads one answer to its end.
func answerTo(t *testing.T, in *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

// TestUpgradeOffers: nobody need take an offer to upgrade, so a request with one is answered like any other, also one
// with a body, and the connection goes on.
func TestUpgradeOffers(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(rw, "%s %s %q", r.Method, b, r.Header.Get("Upgrade"))
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	caller := w.caller(clientID)
	for _, offer := range []string{
		"TLS/1.2", "TLS/1.3, TLS/1.2", "SPDY/3.1", "h2c", "h2c, TLS/1.2", "tcp", "acme/7", "websockets", "web", "socket", "",
	} {
		c, in := raw(t, caller, dialled)
		for _, body := range []string{"one", "another"} {
			_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: "+
				"%d\r\n\r\n%s",
				offer, len(body), body)
			require.NoError(t, err)
			resp, got := answerTo(t, in)
			require.Equal(t, http.StatusOK, resp.StatusCode, "offer %q", offer)
			require.Equal(t, "POST "+body+` ""`, got, "offer %q", offer)
		}
	}
}

// TestExpectContinue: whether a body is wanted is said by who answers: the application, or the route.
func TestExpectContinue(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/refused":
			rw.WriteHeader(http.StatusExpectationFailed)
		case "/moved":
			http.Redirect(rw, r, "http://elsewhere/", http.StatusTemporaryRedirect)
		default:
			_, _ = io.Copy(rw, r.Body) // reading makes Go's server ask for the body
		}
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		rule(below("/routed"), redirect(model.Redirect{Hostname: "elsewhere"})),
		rule(below("/"), nil, to(web, 1)),
	})})
	caller := w.caller(clientID)
	for path, want := range map[string]int{"/refused": 417, "/moved": 307, "/routed": 302, "/taken": 100} {
		c, in := raw(t, caller, dialled)
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", path)
		require.NoError(t, err)
		status, err := readStatus(in)
		require.NoError(t, err, path)
		require.Equal(t, want, status, path)
		if status == http.StatusContinue {
			_, _ = io.WriteString(c, "body")
			resp, got := answerTo(t, in)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Equal(t, "body", got)
		}
	}
	for path, want := range map[string]bool{"/refused": false, "/taken": true} {
		var asked atomic.Bool
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got100Continue: func() { asked.Store(true) },
		}), http.MethodPost, "http://web"+path, strings.NewReader("body"))
		require.NoError(t, err)
		req.Header.Set("Expect", "100-continue")
		c := caller.client(t, dialled, h2cOnly())
		c.Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
		resp, err := c.Do(req)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Equal(t, want, asked.Load(), "h2c %s: %d", path, resp.StatusCode)
	}
}

func h2cOnly() *http.Protocols {
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	return p
}

// TestLargeHeaders: what servers take passes, both ways and in either version of HTTP; what is over the limit is said
// to be.
func TestLargeHeaders(t *testing.T) {
	w := newWorld(t)
	large, one := strings.Repeat("x", 8000), strings.Repeat("x", 200_000)
	fill := func(h http.Header, how string) {
		switch how {
		case "/large":
			for n := range 110 {
				h.Set(fmt.Sprintf("X-Large-%d", n), large)
			}
		case "/one":
			h.Set("X-One", one)
		case "/many":
			for n := range 2000 {
				h.Set(fmt.Sprintf("X-Many-%d", n), "1")
			}
		case "/too-large":
			for n := range 140 {
				h.Set(fmt.Sprintf("X-Large-%d", n), large)
			}
		case "/too-many":
			for n := range 11_000 {
				h.Set(fmt.Sprintf("X-Many-%d", n), "1")
			}
		}
	}
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Got", fmt.Sprint(len(r.Header)))
		fill(rw.Header(), r.URL.Path)
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	for _, protocols := range []*http.Protocols{nil, h2cOnly()} {
		c := w.caller(clientID).client(t, dialled, protocols)
		for how, want := range map[string]int{"/large": 110, "/one": 1, "/many": 2000} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://web"+how, nil)
			require.NoError(t, err)
			fill(req.Header, how)
			resp, err := c.Do(req)
			require.NoError(t, err, "%s, %v", how, protocols)
			_ = resp.Body.Close()
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s, %v", how, protocols)
			require.Greater(t, len(resp.Header), want, "%s, %v", how, protocols)
		}
	}
	c := w.caller(clientID).client(t, dialled, nil)
	for _, how := range []string{"/too-large", "/too-many"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://web/", nil)
		require.NoError(t, err)
		fill(req.Header, how)
		resp, err := c.Do(req)
		require.NoError(t, err, how)
		_ = resp.Body.Close()
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode, how)
		require.Equal(t, http.StatusBadGateway, do(t, c, "GET", "http://web"+how).status, how)
	}
}

// TestTrailers arrive, both ways.
func TestTrailers(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.Header().Set("Trailer", "X-Back")
		_, _ = io.WriteString(rw, r.Proto)
		rw.Header().Set("X-Back", r.Trailer.Get("X-Sum"))
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	for proto, protocols := range map[string]*http.Protocols{"HTTP/1.1": nil, "HTTP/2.0": h2cOnly()} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/",
			io.MultiReader(bytes.NewReader([]byte("body"))))
		require.NoError(t, err)
		req.Trailer = http.Header{"X-Sum": {"42"}}
		resp, err := w.caller(clientID).client(t, dialled, protocols).Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Equal(t, proto, string(b))
		require.Equal(t, "42", resp.Trailer.Get("X-Back"), proto)
	}
}

// TestIdleConnectionsEnd: a connection to an application ends before a server that keeps it for two seconds, the least
// that is common, would end it. The application must not see a request on a connection that it is closing.
func TestIdleConnectionsEnd(t *testing.T) {
	w := newWorld(t)
	ended := make(chan time.Duration, 1)
	e, _ := w.inMesh(appID, w.listen(func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		idle := time.Now()
		_ = c.SetReadDeadline(idle.Add(5 * time.Second))
		_, _ = in.ReadByte()
		ended <- time.Since(idle)
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	require.Equal(t, http.StatusOK, do(t, w.caller(clientID).client(t, dialled, nil), "POST", "http://web/").status)
	require.Less(t, <-ended, 1800*time.Millisecond)
}
