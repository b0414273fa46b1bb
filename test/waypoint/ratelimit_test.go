// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// limiter is a rate limit service that lets so many requests of each kind pass.
type limiter struct {
	ratelimitv3.UnimplementedRateLimitServiceServer

	most   int
	mu     sync.Mutex
	counts map[string]int
}

func (l *limiter) ShouldRateLimit(
	_ context.Context, r *ratelimitv3.RateLimitRequest,
) (*ratelimitv3.RateLimitResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &ratelimitv3.RateLimitResponse{OverallCode: ratelimitv3.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		kind := r.GetDomain()
		for _, e := range d.GetEntries() {
			kind += " " + e.GetKey() + "=" + e.GetValue()
		}
		status := &ratelimitv3.RateLimitResponse_DescriptorStatus{Code: ratelimitv3.RateLimitResponse_OK}
		if l.counts[kind]++; l.counts[kind] > l.most {
			out.OverallCode = ratelimitv3.RateLimitResponse_OVER_LIMIT
			status.Code, status.DurationUntilReset = out.GetOverallCode(), durationpb.New(7*time.Second)
		}
		out.Statuses = append(out.Statuses, status)
	}
	return out, nil
}

func (l *limiter) counted() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// limiter starts a service that lets so many requests of each caller pass, and asks it.
func (w *world) limiter(most int) model.GlobalLimit {
	w.t.Helper()
	address := netip.AddrPortFrom(w.address(), 8081)
	l, err := net.Listen("tcp", address.String())
	require.NoError(w.t, err)
	server := grpc.NewServer()
	ratelimitv3.RegisterRateLimitServiceServer(server, &limiter{most: most, counts: map[string]int{}})
	go func() { _ = server.Serve(l) }()
	w.t.Cleanup(server.Stop)
	at := model.ServicePort{Namespace: "limits", Service: "limiter", Port: 8081}
	w.backend(at, model.ProtocolHTTP2, model.Endpoint{Address: address})
	return model.GlobalLimit{
		Service: at, Domain: "shop", Timeout: 5 * time.Second, Closed: true,
		Descriptors: [][]model.LimitEntry{{{Key: "who"}}},
	}
}

// TestGlobalRateLimit: the service is told what the policy says, its answer holds, and without one the failure mode.
func TestGlobalRateLimit(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, &echo{})
	w.backend(web, model.ProtocolHTTP, e)
	caller := w.caller(clientID)
	c := caller.client(t, w.serve(web, true, nil), nil)
	service := &limiter{most: 2, counts: map[string]int{}}
	address := netip.AddrPortFrom(w.address(), 8081)
	l, err := net.Listen("tcp", address.String())
	require.NoError(t, err)
	server := grpc.NewServer()
	ratelimitv3.RegisterRateLimitServiceServer(server, service)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	at := model.ServicePort{Namespace: "limits", Service: "limiter", Port: 8081}
	w.backend(at, model.ProtocolHTTP2, model.Endpoint{Address: address})

	limit := model.GlobalLimit{Service: at, Domain: "shop", Timeout: 5 * time.Second, Descriptors: [][]model.LimitEntry{
		{{Key: "who"}, {Key: "what", Value: "reviews"}},
		{{Key: "user", Header: "X-User"}},
	}}
	says := func(l model.GlobalLimit) { w.does(model.Requests{GlobalLimit: &l}) }
	get := func(header ...string) reply { return do(t, c, http.MethodGet, "http://web/", header...) }
	says(limit)
	eventually.True(t, "the first question", func() bool {
		return get("X-User", "a").status == http.StatusOK && len(service.counted()) > 0
	})
	require.Equal(t, http.StatusOK, get().status)
	r := get("X-User", "b")
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Equal(t, "7", r.header.Get("Retry-After"))
	require.Equal(t, map[string]int{
		"shop who=" + clientID + " what=reviews": 3, "shop user=a": 1, "shop user=b": 1,
	}, service.counted())

	t.Run("and all else", func(t *testing.T) {
		other := limit
		other.Domain = "other"
		other.Descriptors = [][]model.LimitEntry{{{Key: "user", Header: "X-User"}}}
		w.does(model.Requests{
			GlobalLimit: &other, Delay: &model.Delay{For: 10 * time.Millisecond, Percent: 100}, MaxBytes: 1 << 10,
			Compression: []model.Compression{model.CompressGzip},
		})
		eventually.True(t, "compression", func() bool {
			return get("Accept-Encoding", "gzip", "X-User", fmt.Sprint(time.Now())).header.Get("Content-Encoding") == "gzip"
		})
		for size, want := range map[int]int{1 << 10: http.StatusOK, 1<<10 + 1: http.StatusRequestEntityTooLarge} {
			r, err := http.NewRequest(http.MethodPost, "http://web/", strings.NewReader(strings.Repeat("x", size)))
			require.NoError(t, err)
			r.Header.Set("X-User", "long")
			resp, err := c.Do(r)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, want, resp.StatusCode)
		}
		require.Equal(t, 1, service.counted()["other user=long"], "no question about what is refused anyway")
		w.does(model.Requests{
			GlobalLimit: &other, Abort: &model.Abort{Status: http.StatusTeapot, Percent: 100},
		})
		eventually.True(t, "an error", func() bool {
			return get("X-User", fmt.Sprint(time.Now())).status == http.StatusTeapot
		})
		says(limit)
		eventually.True(t, "the limit alone", func() bool { return get("X-User", "b").status == http.StatusTooManyRequests })
	})

	answers := func(status int, when string) {
		t.Helper()
		eventually.True(t, when, func() bool { return get().status == status })
	}
	server.Stop()
	require.Equal(t, http.StatusOK, get().status, "open")
	limit.Closed = true
	says(limit)
	answers(http.StatusServiceUnavailable, "closed")
	limit.Invalid = true
	says(limit)
	answers(http.StatusServiceUnavailable, "closed, and no service at all")
	limit.Closed = false
	says(limit)
	answers(http.StatusOK, "open, and no service at all")
}
