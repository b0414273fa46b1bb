// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/model"
)

// http2Refusals are what may come of a request that the application's server takes for none: it may reset that, too.
var http2Refusals = []int{http.StatusBadRequest, http.StatusBadGateway}

// http2Caller is rawCaller over HTTP/2: its requests are no better than what they are made of.
type http2Caller struct {
	t    *testing.T
	dial func() (net.Conn, error)
	c    net.Conn
	f    *http2.Framer
	pack *hpack.Encoder
	out  *bytes.Buffer
	last uint32
	// once: no connection is made but the first.
	once bool
}

// send returns the status of the answer; 400 where Envoy takes the request for none, and ends its stream or, a while
// later, the connection.
func (h *http2Caller) send(q explain.Request) int {
	h.t.Helper()
	again := h.c != nil
	if !again {
		h.connect()
	}
	_ = h.c.SetDeadline(time.Now().Add(patience))
	h.last += 2
	h.out.Reset()
	fields := [][2]string{{":method", q.Method}, {":scheme", "http"}, {":authority", q.Host}, {":path", q.Path}}
	for name, values := range q.Headers {
		for _, v := range values {
			// Clients of HTTP/2 put no spaces around values (RFC 9113, 8.2.1); HTTP/1.1 takes them away.
			fields = append(fields, [2]string{strings.ToLower(name), strings.Trim(v, " \t")})
		}
	}
	for _, field := range fields {
		_ = h.pack.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = h.f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: h.last, BlockFragment: h.out.Bytes(), EndHeaders: true, EndStream: true,
	})
	status := h.answer()
	if status != 0 {
		return status
	}
	_ = h.c.Close()
	h.c = nil
	if again && !h.once {
		return h.send(q) // it may have ended for something else
	}
	return http.StatusBadRequest
}

func (h *http2Caller) connect() {
	h.t.Helper()
	c, err := h.dial()
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	h.c, h.out, h.last = c, &bytes.Buffer{}, ^uint32(0)
	h.pack, h.f = hpack.NewEncoder(h.out), http2.NewFramer(c, c)
	h.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = h.f.WriteSettings()
	_ = h.f.WriteWindowUpdate(0, 1<<30)
}

// answer to the last request, read to its end; 0: the connection ends.
func (h *http2Caller) answer() (status int) {
	for {
		frame, err := h.f.ReadFrame()
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = h.f.WriteSettingsAck()
			}
			continue
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = h.f.WritePing(true, frame.Data)
			}
			continue
		case *http2.MetaHeadersFrame:
			if status == 0 {
				status, _ = strconv.Atoi(frame.PseudoValue("status"))
			}
			if frame.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == h.last && status == 0 {
				return http.StatusBadRequest
			}
			return status
		case *http2.GoAwayFrame:
			return 0
		}
	}
}

// TestExplainAgreesWithEnvoyOverHTTP2: what is explained of a request is what becomes of it in HTTP/2, too, by policies
// and by routes.
func TestExplainAgreesWithEnvoyOverHTTP2(t *testing.T) {
	s := newShop(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := explained{rand.New(rand.NewPCG(seed, 17))}
	dialled, as := s.guard(nil), s.caller(clientID)
	caller := func() *http2Caller {
		return &http2Caller{t: t, dial: func() (net.Conn, error) { return as.dial(t.Context(), dialled) }}
	}
	c, count := caller(), map[int]int{}
	type sent struct {
		a   explain.Answer
		q   explain.Request
		got int
	}
	var refused []*sent
	var all sync.WaitGroup
	for range 60 {
		table := model.RouteTable{
			Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Guards: r.guards(),
		}
		var rules []model.Rule
		if r.IntN(2) == 0 {
			for n := range 1 + r.IntN(4) {
				rules = append(rules, r.rule(n))
			}
		}
		s.guard(table.Guards, rules...)
		table.Default = pointers(rules)
		for range 60 {
			q := r.asked()
			a := explain.AtTable(trustDomain, table, model.Authentications{}, clientID, q)
			if a.Verdict == explain.Depends {
				count[0]++
				continue
			}
			if a.Status == http.StatusBadRequest || strings.Contains(q.Host, "@") {
				// It is none, whatever the table is, and Envoy takes 5 s to end the connection for it.
				one := &sent{a: a, q: q}
				refused = append(refused, one)
				on := caller()
				on.connect()
				on.once = true
				all.Go(func() { one.got = on.send(q) })
				continue
			}
			count[agrees(t, http2Refusals, a, q, c.send(q), seed, table.Default, table.Guards)]++
		}
	}
	all.Wait()
	for _, one := range refused {
		count[agrees(t, http2Refusals, one.a, one.q, one.got, seed)]++
	}
	t.Log(count)
	for _, status := range []int{200, 400, 403, 404} {
		require.NotZero(t, count[status], status)
	}
	require.Less(t, count[0], 60*60/3, "most is known")
}
