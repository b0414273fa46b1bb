// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestConnectionsThatProveNothingEnd: whoever reaches the port may hold a connection for a moment only, however far it
// gets.
func TestConnectionsThatProveNothingEnd(t *testing.T) {
	require.LessOrEqual(t, xdsPatience.handshake, 10*time.Second)
	require.LessOrEqual(t, xdsPatience.idle, time.Minute)

	lender := httptest.NewUnstartedServer(http.NotFoundHandler())
	lender.StartTLS()
	certificates := lender.TLS.Certificates
	lender.Close()
	s := xds.NewServer(xds.Options{Cache: xds.NewCache(), Log: logr.Discard(), Authenticator: xds.AuthenticatorFunc(
		func(context.Context) (xds.Proxy, error) { return xds.Proxy{}, errors.New("no token") })})
	g := newXDSServer(s, &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS13},
		patience{handshake: 100 * time.Millisecond, idle: 100 * time.Millisecond})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = g.Serve(ln) }()
	t.Cleanup(g.Stop)

	secured := func(t *testing.T, c net.Conn) *tls.Conn {
		out := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		require.NoError(t, out.Handshake())
		return out
	}
	greeted := func(t *testing.T, c net.Conn) (*tls.Conn, *http2.Framer) {
		out := secured(t, c)
		_, err := io.WriteString(out, http2.ClientPreface)
		require.NoError(t, err)
		f := http2.NewFramer(out, nil)
		require.NoError(t, f.WriteSettings())
		return out, f
	}
	for name, begin := range map[string]func(*testing.T, net.Conn) net.Conn{
		"silence": func(_ *testing.T, c net.Conn) net.Conn { return c },
		"half a record": func(t *testing.T, c net.Conn) net.Conn {
			_, err := c.Write([]byte{22, 3})
			require.NoError(t, err)
			return c
		},
		"TLS, no more":    func(t *testing.T, c net.Conn) net.Conn { return secured(t, c) },
		"HTTP/2, no more": func(t *testing.T, c net.Conn) net.Conn { out, _ := greeted(t, c); return out },
		"headers without an end": func(t *testing.T, c net.Conn) net.Conn {
			out, f := greeted(t, c)
			require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
			return out
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // gRPC waits for some seconds for the answer to its farewell
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.Copy(io.Discard, begin(t, c))
			var timeout net.Error
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection is open still")
		})
	}
}
