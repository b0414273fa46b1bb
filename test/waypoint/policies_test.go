// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestPoliciesOfRequests: what a TrafficPolicy says of requests holds for the port that it is for, from the next request
// on, on connections that are open, and for no other.
func TestPoliciesOfRequests(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, &echo{})
	other := model.ServicePort{Namespace: "shop", Service: "other", Port: 80}
	w.backend(web, model.ProtocolHTTP, e)
	w.backend(other, model.ProtocolHTTP, e)
	caller := w.caller(clientID)
	c, free := caller.client(t, w.serve(web, true, nil), nil), caller.client(t, w.serve(other, true, nil), nil)
	says := func(r model.Requests) {
		t.Helper()
		table := model.RouteTable{Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Requests: r}
		u := w.tableOf(table)
		w.apply(u)
		w.acknowledged(u)
	}
	get := func(header ...string) reply { return do(t, c, http.MethodGet, "http://web/", header...) }
	require.Equal(t, http.StatusOK, get().status)

	t.Run("local limit", func(t *testing.T) {
		says(model.Requests{LocalLimit: &model.LocalLimit{Requests: 2, Unit: time.Hour}})
		require.Equal(t, http.StatusOK, get().status)
		require.Equal(t, http.StatusOK, get().status)
		r := get()
		require.Equal(t, http.StatusTooManyRequests, r.status)
		require.Equal(t, "1800", r.header.Get("Retry-After"))
		require.Equal(t, http.StatusOK, do(t, free, http.MethodGet, "http://other/").status)
	})
	t.Run("faults", func(t *testing.T) {
		says(model.Requests{Abort: &model.Abort{Status: 418, Percent: 100}})
		require.Equal(t, 418, get().status)
		says(model.Requests{Delay: &model.Delay{For: 300 * time.Millisecond, Percent: 100}})
		began := time.Now()
		require.Equal(t, http.StatusOK, get().status)
		require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	})
	t.Run("buffering", func(t *testing.T) {
		says(model.Requests{MaxBytes: 1 << 10})
		post := func(size int) int {
			resp, err := c.Post("http://web/", "text/plain", strings.NewReader(strings.Repeat("x", size)))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			return resp.StatusCode
		}
		require.Equal(t, http.StatusOK, post(1<<10))
		require.Equal(t, http.StatusRequestEntityTooLarge, post(1<<10+1))
	})
	t.Run("compression", func(t *testing.T) {
		says(model.Requests{Compression: []model.Compression{
			model.CompressBrotli, model.CompressGzip, model.CompressZstd,
		}})
		for accept, want := range map[string]string{"gzip": "gzip", "br": "br", "zstd": "zstd", "gzip, br": "br", "x": ""} {
			r := get("Accept-Encoding", accept)
			require.Equal(t, want, r.header.Get("Content-Encoding"), accept)
		}
	})
}
