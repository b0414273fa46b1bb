// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Options configure a Server. Cache and Authenticator are required.
type Options struct {
	Cache         *Cache
	Authenticator Authenticator
	// OnInterest is told of first and last subscribers, in order per name and outside all locks; it may call the Cache.
	// Changes that cancel each other out before it is called are not reported.
	OnInterest func(Interest)
	// OnAck is told of each verdict from the goroutine of the stream; it must not block.
	OnAck func(Ack)
	// Allowed restricts what a proxy may subscribe to (name may be Wildcard). What it refuses is answered as if it did not
	// exist, and logged once per stream. nil allows everything in the proxy's own scope.
	Allowed    func(p Proxy, typeURL, name string) bool
	Log        logr.Logger
	Registerer prometheus.Registerer
	// MaxStreams bounds the connected streams; 0 means DefaultMaxStreams.
	MaxStreams int
	// MaxSubscriptions bounds the names of one stream over all types; 0 means DefaultMaxSubscriptions.
	MaxSubscriptions int
	// MaxResponseBytes is the size beyond which a response is split; 0 means DefaultMaxResponseBytes.
	MaxResponseBytes int
	// Supersede ends the older stream of a pod when a newer one comes: set it where each pod has one stream, so that a
	// half-open connection does not linger in the acknowledgement book.
	Supersede bool
}

// Server serves delta ADS. Make it with NewServer.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	opts Options
}

// NewServer returns a server; Register makes it reachable.
func NewServer(opts Options) *Server { return &Server{opts: opts} }

// Register adds the aggregated discovery service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// Proxies returns a snapshot of the connected streams, ordered by scope and pod.
func (s *Server) Proxies() []ProxyState { return nil }

// State returns the acknowledgement state of one resource.
func (s *Server) State(scope, typeURL, name string) ResourceState { return ResourceState{} }

// OnChange calls fn whenever State of a resource may have changed: coalesced, one call at a time, outside all locks. The
// returned function ends it.
func (s *Server) OnChange(fn func(scope, typeURL, name string)) (cancel func()) { return func() {} }
