// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// rogue is a rate limit service that says what it is told to.
type rogue struct {
	ratelimitv3.UnimplementedRateLimitServiceServer

	mu     sync.Mutex
	answer *ratelimitv3.RateLimitResponse
}

func (r *rogue) ShouldRateLimit(
	context.Context, *ratelimitv3.RateLimitRequest,
) (*ratelimitv3.RateLimitResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer, nil
}

func (r *rogue) says(answer *ratelimitv3.RateLimitResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// passing lets a request pass, with a header more.
func passing(name, value string) *ratelimitv3.RateLimitResponse {
	return &ratelimitv3.RateLimitResponse{
		OverallCode:         ratelimitv3.RateLimitResponse_OK,
		RequestHeadersToAdd: []*corev3.HeaderValue{{Key: name, Value: value}},
	}
}

// headed is what a service says of the answer, with which the request passes, or which it is refused with.
func headed(code ratelimitv3.RateLimitResponse_Code, name, value string) *ratelimitv3.RateLimitResponse {
	return &ratelimitv3.RateLimitResponse{
		OverallCode: code, ResponseHeadersToAdd: []*corev3.HeaderValue{{Key: name, Value: value}},
	}
}

// rogue starts such a service, and has it asked about all requests. Once it adds a header, it is asked.
func (s *scripted) rogue(reserved ...string) *rogue {
	s.t.Helper()
	address := netip.AddrPortFrom(s.address(), 8081)
	l, err := net.Listen("tcp", address.String())
	require.NoError(s.t, err)
	service, server := &rogue{}, grpc.NewServer()
	ratelimitv3.RegisterRateLimitServiceServer(server, service)
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(server.Stop)
	at := model.ServicePort{Namespace: "limits", Service: "rogue", Port: 8081}
	s.backend(at, model.ProtocolHTTP2, model.Endpoint{Address: address})
	service.says(passing("x-ratelimit-remaining", "3"))
	s.does(model.Requests{GlobalLimit: &model.GlobalLimit{
		Service: at, Domain: "shop", Timeout: 20 * time.Second, Closed: true, Reserved: reserved,
		Descriptors: [][]model.LimitEntry{{{Key: "who"}}},
	}})
	eventually.True(s.t, "the service is asked", func() bool {
		resp, body := s.asks(http.MethodGet, "/", "")
		return resp.StatusCode == http.StatusOK && strings.Contains(body, `"X-Ratelimit-Remaining":["3"]`)
	})
	return service
}

const failedLimit = "a rate limit service failed\n"

// notForServices are headers that change where a request is for, who calls, where it ends or what the proxy does, or
// that are none.
var notForServices = append(slices.Clone(notForOthers), [][2]string{
	{"x-envoy-upstream-rq-timeout-ms", "1"},
	{"x_envoy_original_path", "/"},
	{"content-length", "0"},
	{"keep-alive", "x"},
}...)

// TestRateLimitServicesDontSteer: of what a rate limit service adds to a request, nothing says who calls, where the
// request is for or ends, what the proxy is to do, or what is reserved; a request with such a header goes nowhere.
func TestRateLimitServicesDontSteer(t *testing.T) {
	s := newScripted(t)
	service := s.rogue("authorization", "x-user-name")
	refused := func(what string, headers ...string) {
		t.Helper()
		served := s.app.Requests.Load()
		resp, body := s.asks(http.MethodPost, "/", "body", headers...)
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode, "%.60s: %s", what, body)
		require.Equal(t, failedLimit, body, "%.60s", what)
		require.Equal(t, served, s.app.Requests.Load(), "%.60s: the application was asked", what)
	}
	for _, h := range slices.Concat(notForServices, [][2]string{
		{"x-user-name", "admin"},
		{"X_User-Name", "admin"},
		{"authorization", "Bearer x"},
	}) {
		service.says(passing(h[0], h[1]))
		refused(h[0])
		refused(h[0], "X-User-Name", "ann", "Authorization", "Bearer y", "Te", "trailers")
	}
	many := passing("x-more", "1")
	for range 256 {
		many.RequestHeadersToAdd = append(many.RequestHeadersToAdd, many.GetRequestHeadersToAdd()[0])
	}
	service.says(many)
	refused("many")
	eventually.True(t, "a line of the log", func() bool {
		return strings.Contains(s.log.String(), "rate limit service limits/rogue: it changed a header")
	})

	// What it may: say something of its own, whatever the caller sends.
	many.RequestHeadersToAdd = many.GetRequestHeadersToAdd()[1:]
	service.says(many)
	headers := []string{"X-More", "0", "X-Long", strings.Repeat("x", 100<<10), "X-User-Name", "ann"}
	for n := range 300 {
		headers = append(headers, fmt.Sprint("X-Many-", n), "")
	}
	resp, body := s.asks(http.MethodPost, "/", "body", headers...)
	require.Equal(t, http.StatusOK, resp.StatusCode, body)
	require.Equal(t, "body", s.app.last())
	var got echoed
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Len(t, got.Header["X-More"], 257)
	require.Equal(t, []string{"ann"}, got.Header["X-User-Name"])
}

// TestRateLimitServicesDontEndAnswers: of what a rate limit service adds to an answer, nothing says where it ends or is
// another answer, whether the application gave it or the service had the request refused.
func TestRateLimitServicesDontEndAnswers(t *testing.T) {
	s := newScripted(t)
	service := s.rogue()
	const pass, refuse = ratelimitv3.RateLimitResponse_OK, ratelimitv3.RateLimitResponse_OVER_LIMIT
	for _, h := range [][2]string{
		{":status", "204"},
		{":path", "/"},
		{"transfer-encoding", "x"},
		{"connection", "close"},
		{"upgrade", "x"},
		{"x-split", "a\r\nset-cookie: a=b"},
		{"x split", "a"},
		{"x-null", "a\x00"},
		{"", "a"},
	} {
		for _, code := range []ratelimitv3.RateLimitResponse_Code{pass, refuse} {
			service.says(headed(code, h[0], h[1]))
			want := http.StatusInternalServerError
			if code == refuse && h[0] == ":status" {
				want = http.StatusTooManyRequests // Envoy sets it last
			}
			resp, body := s.asks(http.MethodGet, "/", "")
			require.Equal(t, want, resp.StatusCode, "%s: %v", code, h)
			require.Empty(t, resp.Header.Get("Set-Cookie"))
			require.Empty(t, resp.Header.Get("X-Split"))
			if code == pass {
				require.Equal(t, failedLimit, body, "%s: %v", code, h)
			}
			resp, _ = s.asks(http.MethodHead, "/", "")
			require.Equal(t, want, resp.StatusCode, "%s: %v", code, h)
		}
	}
	for _, h := range [][2]string{{"content-length", "1"}, {"x-envoy-x", "1"}, {"x-forwarded-for", "1"}} {
		service.says(headed(pass, h[0], h[1]))
		resp, body := s.asks(http.MethodGet, "/", "")
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode, h)
		require.Equal(t, failedLimit, body, h)
	}

	t.Run("each request has its answer", func(t *testing.T) {
		dialled := names.ServerName(web.Namespace, web.Service, web.Port)
		for _, h := range [][2]string{
			{"content-length", "77"},
			{"content-length", "0"},
			{"transfer-encoding", "chunked"},
			{"connection", "close"},
			{"x-ratelimit-limit", "5"},
		} {
			for _, code := range []ratelimitv3.RateLimitResponse_Code{pass, refuse} {
				for _, body := range []string{"", forged} {
					answer := headed(code, h[0], h[1])
					answer.RawBody = []byte(body)
					service.says(answer)
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						oneByOne(t, s.world, dialled, method, "/")
					}
				}
			}
		}
	})
}

// TestRateLimitServicesAnswer: what else a service says of answers is theirs, and upgrades pass.
func TestRateLimitServicesAnswer(t *testing.T) {
	s := newScripted(t)
	service := s.rogue()
	service.says(headed(ratelimitv3.RateLimitResponse_OK, "RateLimit-Remaining", "3"))
	resp, _ := s.asks(http.MethodGet, "/", "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "3", resp.Header.Get("RateLimit-Remaining"))
	answer := headed(ratelimitv3.RateLimitResponse_OVER_LIMIT, "Content-Type", "application/json")
	answer.RawBody = []byte("{}")
	service.says(answer)
	resp, body := s.asks(http.MethodGet, "/", "")
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
	require.Equal(t, []string{"application/json"}, resp.Header.Values("Content-Type"))
	require.Equal(t, "{}", body)

	s.answer = func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, buffered)
	}
	dialled := names.ServerName(web.Namespace, web.Service, web.Port)
	for header, want := range map[string]int{
		"RateLimit-Remaining": http.StatusSwitchingProtocols, "Connection": http.StatusInternalServerError,
	} {
		service.says(headed(ratelimitv3.RateLimitResponse_OK, header, "3"))
		c, in := raw(t, s.caller(clientID), dialled)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err, header)
		require.Equal(t, want, resp.StatusCode, header)
		if want != http.StatusSwitchingProtocols {
			continue
		}
		_, err = io.WriteString(c, "hello")
		require.NoError(t, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(in, got)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	}
}
