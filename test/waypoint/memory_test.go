// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestFloodOfHeaders: requests with headers of 1.2 GB in all, which HTTP/2 packs to less than 1 MB, cost themselves.
// The proxy stays within its memory and serves others.
func TestFloodOfHeaders(t *testing.T) {
	const memory = 1 << 30
	w := newWorldWithin(t, memory, nil)
	e, _ := w.pod(appID, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	var callers []*tls.Conn
	for range 50 {
		c, err := w.caller(clientID).dial(t.Context(), dialled)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		callers = append(callers, c)
	}
	var refused atomic.Int64
	requests := packedRequests(100, 60)
	for _, c := range callers {
		go countRefused(c, &refused)
		go func() { _, _ = c.Write(requests) }()
	}
	eventually.True(w.t, "a refusal", func() bool { return refused.Load() > 0 })
	others := w.caller(clientID).client(t, dialled, nil)
	eventually.True(w.t, "another's request to be served", func() bool {
		resp, err := others.Get("http://web/")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	require.Less(t, w.peak(), memory)
}

// TestSilentRequests: one that has nothing to say gives its memory back when that is short, and only then.
func TestSilentRequests(t *testing.T) {
	for what, short := range map[string]bool{"short": true, "plenty": false} {
		t.Run(what, func(t *testing.T) {
			w := newWorldWithin(t, 1<<30, func(b *bootstrapv3.Bootstrap) { hurrySilent(t, b.GetOverloadManager(), short) })
			begun := make(chan struct{}, 1)
			e, _ := w.pod(appID, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				begun <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			w.backend(web, model.ProtocolHTTP, e)
			dialled := w.serve(web, true, nil)
			body, end := io.Pipe()
			// Some bodies last for ever, and this one for longer than a silent request may.
			time.AfterFunc(4*hurried, func() {
				if !short {
					_ = end.Close()
				}
			})
			t.Cleanup(func() { _ = end.Close() })
			req, err := http.NewRequest(http.MethodPost, "http://web/", body)
			require.NoError(t, err)
			resp, err := w.caller(clientID).client(t, dialled, nil).Do(req)
			require.NoError(t, err)
			_ = resp.Body.Close()
			<-begun
			want := http.StatusOK
			if short {
				want = http.StatusRequestTimeout
			}
			require.Equal(t, want, resp.StatusCode)
		})
	}
}

// TestStreamsThatHoldMost: an answer that nobody reads is reset when memory is short, and other ones go on.
func TestStreamsThatHoldMost(t *testing.T) {
	w := newWorldWithin(t, 1<<30, func(b *bootstrapv3.Bootstrap) { resetAlways(t, b.GetOverloadManager()) })
	ended := make(chan struct{})
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/large" {
			return
		}
		for part := make([]byte, 1<<20); ; {
			if _, err := rw.Write(part); err != nil {
				close(ended)
				return
			}
		}
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	client := w.caller(clientID).client(t, dialled, h2cOnly())
	client.Timeout = 0
	resp, err := client.Get("http://web/large")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
	_, err = io.Copy(io.Discard, resp.Body)
	require.Error(t, err, "what is cut off must not look like an end")
	// The connection held as much as its only request, and may be gone as well.
	others := w.caller(clientID).client(t, dialled, h2cOnly())
	require.Equal(t, http.StatusOK, do(t, others, http.MethodGet, "http://web/small").status)
}

// resetAlways has streams reset as if memory were short. Envoy does it whenever the shortage changes, so it may not be
// as short as can be: then the streams that hold most are those of the last of eight classes, each of twice the size.
func resetAlways(t *testing.T, m *overloadv3.OverloadManager) {
	t.Helper()
	for _, a := range m.GetActions() {
		if scaled := a.GetTriggers()[0].GetScaled(); scaled != nil {
			scaled.ScalingThreshold, scaled.SaturationThreshold = 0, 1
			m.BufferFactoryConfig.MinimumAccountToTrackPowerOfTwo = 10
			return
		}
	}
	t.Fatal("no streams are reset")
}

// hurrySilent shortens how long a request may be silent while memory is short, which it may be from the start.
func hurrySilent(t *testing.T, m *overloadv3.OverloadManager, short bool) {
	t.Helper()
	for _, a := range m.GetActions() {
		config := &overloadv3.ScaleTimersOverloadActionConfig{}
		if a.GetTypedConfig().UnmarshalTo(config) != nil {
			continue
		}
		require.Len(t, config.GetTimerScaleFactors(), 1)
		config.TimerScaleFactors[0].OverloadAdjust = &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer_MinTimeout{
			MinTimeout: envoy.Duration(hurried),
		}
		a.TypedConfig = envoy.Any(config)
		if short {
			a.GetTriggers()[0].GetThreshold().Value = 0
		}
		return
	}
	t.Fatal("requests may be silent while memory is short")
}

// packedRequests is what a client of HTTP/2 sends that begins requests with so many headers of 4 KB each, and ends
// none.
func packedRequests(requests, headers int) []byte {
	var out, block bytes.Buffer
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	_ = f.WriteSettings()
	pack := hpack.NewEncoder(&block)
	for n := range requests {
		block.Reset()
		for name, value := range map[string]string{":method": "POST", ":scheme": "http", ":authority": "web", ":path": "/"} {
			_ = pack.WriteField(hpack.HeaderField{Name: name, Value: value})
		}
		for range headers {
			_ = pack.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: block.Bytes(), EndHeaders: true})
	}
	return out.Bytes()
}

// countRefused counts the streams that the other side answers or ends, and the end of the connection.
func countRefused(c io.Reader, refused *atomic.Int64) {
	for f := http2.NewFramer(nil, c); ; {
		frame, err := f.ReadFrame()
		if err != nil {
			refused.Add(1)
			return
		}
		switch frame.(type) {
		case *http2.HeadersFrame, *http2.RSTStreamFrame:
			refused.Add(1)
		}
	}
}

// peak is the most memory that Envoy ever had.
func (w *world) peak() int {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	require.NoError(w.t, err, "Envoy runs")
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(w.t, err)
	return kib << 10
}

// TestStalledReadersCostLittle: connections to a TCP port whose reader stalls hold little of the proxy's memory.
// Nothing resets those, as it does with HTTP.
func TestStalledReadersCostLittle(t *testing.T) {
	const connections, most = 100, 1 << 20
	w := newWorld(t)
	stalled := make(chan error, connections)
	e, _ := w.inMesh(appID, w.listen(func(c *net.TCPConn) {
		var err error
		for b := make([]byte, 1<<20); err == nil; {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, err = c.Write(b)
		}
		stalled <- err
	}))
	db := model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	w.backend(db, model.ProtocolTCP, e)
	dialled := w.serve(db, false, nil)
	before := w.peak()
	for range connections {
		c, err := w.caller(clientID).dial(t.Context(), dialled)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
	}
	for range connections {
		require.ErrorIs(t, <-stalled, os.ErrDeadlineExceeded)
	}
	require.Less(t, w.peak()-before, connections*most)
}
