// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"errors"
	"io"
	"sync"
	"time"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// pause is how often a proxy may report at most; agents do so more seldom.
const pause = 5 * time.Second

// Server is Envoy's metrics service, for the agents of proxies. A report is one call with one message, whose scope is
// what the caller has proved to be.
type Server struct {
	metricsv3.UnimplementedMetricsServiceServer
	authenticator xds.Authenticator
	take          func(Source, []Count)
	now           func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // by the proxy's pod
}

// NewServer hands what proxies tell to take.
func NewServer(a xds.Authenticator, take func(Source, []Count)) *Server {
	return &Server{authenticator: a, take: take, now: time.Now, last: map[string]time.Time{}}
}

// Register makes it reachable.
func (s *Server) Register(g grpc.ServiceRegistrar) { metricsv3.RegisterMetricsServiceServer(g, s) }

// StreamMetrics takes in one report.
func (s *Server) StreamMetrics(g metricsv3.MetricsService_StreamMetricsServer) error {
	proxy, err := s.authenticator.Authenticate(g.Context())
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return err
		}
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if proxy.Scope == "" || proxy.PodUID == "" {
		return status.Error(codes.PermissionDenied, "only waypoints and node proxies of the mesh tell of their callers")
	}
	if !s.admit(proxy.PodUID) {
		return status.Errorf(codes.ResourceExhausted, "a proxy reports every %s at most", pause)
	}
	m, err := g.Recv()
	if errors.Is(err, io.EOF) {
		return g.SendAndClose(&metricsv3.StreamMetricsResponse{})
	}
	if err != nil {
		return err
	}
	all, err := Parse(m.GetEnvoyMetrics(), s.now())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.take(Source{Scope: proxy.Scope, Proxy: proxy.PodUID}, all)
	return g.SendAndClose(&metricsv3.StreamMetricsResponse{})
}

func (s *Server) admit(pod string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.last[pod]) < pause {
		return false
	}
	if len(s.last) > maxReporters {
		for p, at := range s.last {
			if now.Sub(at) >= pause {
				delete(s.last, p)
			}
		}
	}
	s.last[pod] = now
	return true
}

// maxReporters that are remembered before those that may report again are forgotten.
const maxReporters = 1024
