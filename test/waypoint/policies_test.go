// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// does has the waypoint do with requests to the port of Service web as a TrafficPolicy says.
func (w *world) does(r model.Requests) {
	w.t.Helper()
	w.doesWith(model.RouteTable{Requests: r})
}

// doesWith is does with a whole table.
func (w *world) doesWith(table model.RouteTable) {
	w.t.Helper()
	table.Port, table.Protocol = web, model.ProtocolHTTP
	u := w.tableOf(table)
	w.apply(u)
	w.acknowledged(u)
}

// TestPoliciesOfRequests: what a TrafficPolicy says of requests holds for the port that it is for, from the next
// request on, on connections that are open, and for no other.
func TestPoliciesOfRequests(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, &echo{})
	other := model.ServicePort{Namespace: "shop", Service: "other", Port: 80}
	w.backend(web, model.ProtocolHTTP, e)
	w.backend(other, model.ProtocolHTTP, e)
	caller := w.caller(clientID)
	c, free := caller.client(t, w.serve(web, true, nil), nil), caller.client(t, w.serve(other, true, nil), nil)
	// A worker of Envoy may take one more request by the table before after Envoy has acknowledged: hence eventually.
	says := func(r model.Requests) { w.does(r) }
	get := func(header ...string) reply { return do(t, c, http.MethodGet, "http://web/", header...) }
	require.Equal(t, http.StatusOK, get().status)

	t.Run("local limit", func(t *testing.T) {
		says(model.Requests{LocalLimit: &model.LocalLimit{Requests: 2, Unit: time.Hour}})
		passed := 0
		r := get()
		for ; r.status == http.StatusOK && passed < 4; r = get() {
			passed++
		}
		require.Contains(t, []int{2, 3}, passed)
		require.Equal(t, http.StatusTooManyRequests, r.status)
		require.Equal(t, "1800", r.header.Get("Retry-After"))
		require.Equal(t, http.StatusOK, do(t, free, http.MethodGet, "http://other/").status)
		// With another table the count begins anew, as the API says.
		w.doesWith(model.RouteTable{
			Default:  pointers([]model.Rule{rule(below("/"), nil, to(web, 1))}),
			Requests: model.Requests{LocalLimit: &model.LocalLimit{Requests: 2, Unit: time.Hour}},
		})
		eventually.True(t, "a full bucket", func() bool { return get().status == http.StatusOK })
	})
	t.Run("faults", func(t *testing.T) {
		says(model.Requests{Abort: &model.Abort{Status: http.StatusTeapot, Percent: 100}})
		eventually.True(t, "an error", func() bool { return get().status == http.StatusTeapot })
		says(model.Requests{Delay: &model.Delay{For: 300 * time.Millisecond, Percent: 100}})
		eventually.True(t, "a delay", func() bool {
			began := time.Now()
			return get().status == http.StatusOK && time.Since(began) >= 300*time.Millisecond
		})
	})
	t.Run("buffering", func(t *testing.T) {
		says(model.Requests{MaxBytes: 1 << 10})
		post := func(size int) int {
			resp, err := c.Post("http://web/", "text/plain", strings.NewReader(strings.Repeat("x", size)))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			return resp.StatusCode
		}
		eventually.True(t, "a refusal", func() bool { return post(1<<10+1) == http.StatusRequestEntityTooLarge })
		require.Equal(t, http.StatusOK, post(1<<10))
	})
	t.Run("compression", func(t *testing.T) {
		says(model.Requests{Compression: []model.Compression{
			model.CompressBrotli, model.CompressGzip, model.CompressZstd,
		}})
		for accept, want := range map[string]string{"gzip": "gzip", "br": "br", "zstd": "zstd", "gzip, br": "br", "x": ""} {
			eventually.True(t, accept+" leads to "+want, func() bool {
				return get("Accept-Encoding", accept).header.Get("Content-Encoding") == want
			})
		}
	})
}

// TestPoliciesOfRequestsTogether: what may hold a request back takes nothing from what comes after it.
func TestPoliciesOfRequestsTogether(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, &echo{})
	w.backend(web, model.ProtocolHTTP, e)
	c := w.caller(clientID).client(t, w.serve(web, true, nil), nil)
	limit := w.limiter(1000)
	delay := &model.Delay{For: 20 * time.Millisecond, Percent: 100}
	const most = 1 << 10
	// post tells status and encoding of the answer to a body of a length that is said, or that isn't.
	post := func(size int, said bool) (int, string) {
		t.Helper()
		body := io.Reader(strings.NewReader(strings.Repeat("x", size)))
		if !said {
			body = io.MultiReader(body)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/", body)
		require.NoError(t, err)
		r.Header.Set("Accept-Encoding", "gzip")
		resp, err := c.Do(r)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode, resp.Header.Get("Content-Encoding")
	}
	for name, asked := range map[string]model.Requests{
		"none":            {},
		"global limit":    {GlobalLimit: &limit},
		"delay":           {Delay: delay},
		"limit and delay": {GlobalLimit: &limit, Delay: delay},
	} {
		t.Run(name, func(t *testing.T) {
			asked.MaxBytes, asked.Compression = most, []model.Compression{model.CompressGzip}
			w.does(asked)
			eventually.True(t, "an answer by this table", func() bool {
				status, encoding := post(most, true)
				return status == http.StatusOK && encoding == "gzip"
			})
			for _, said := range []bool{true, false} {
				for range 4 {
					status, encoding := post(most, said)
					require.Equal(t, http.StatusOK, status)
					require.Equal(t, "gzip", encoding)
					status, _ = post(most+1, said)
					require.Equal(t, http.StatusRequestEntityTooLarge, status)
				}
			}
			asked.Abort = &model.Abort{Status: http.StatusTeapot, Percent: 100}
			w.does(asked)
			eventually.True(t, "an error", func() bool {
				status, _ := post(1, true)
				return status == http.StatusTeapot
			})
		})
	}
}

// TestBodiesAreBoundedBehindAnAuthorizationService: what of a body came while the service was asked counts, too.
func TestBodiesAreBoundedBehindAnAuthorizationService(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return yes(&authv3.OkHttpResponse{})
	})
	const most = 1 << 10
	a := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second}
	g.doesWith(model.RouteTable{
		Default:  pointers([]model.Rule{rule(below("/"), filters(model.Filter{ExternalAuth: &a}), to(web, 1))}),
		Requests: model.Requests{MaxBytes: most},
	})
	eventually.True(t, "a question", func() bool {
		return g.post("xx", false) == http.StatusOK && service.count() > 0
	})
	for _, inPieces := range []bool{false, true} {
		for range 8 {
			require.Equal(t, http.StatusOK, g.post(strings.Repeat("x", most), inPieces))
			require.Equal(t, http.StatusRequestEntityTooLarge, g.post(strings.Repeat("x", most+1), inPieces))
		}
	}
}
