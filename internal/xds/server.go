// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Bounds that apply unless Options say otherwise.
const (
	defaultMaxStreams       = 20000
	defaultMaxSubscriptions = 200000
	defaultMaxResponseBytes = 4 << 20
	maxTypes                = 64       // distinct types on one stream
	maxNameLength           = 4096     // of a resource name, and of a type URL
	maxErrorLength          = 4096     // of a proxy's error text that is kept
	maxRequestBytes         = 32 << 20 // a reconnecting proxy lists all that it has in its first request
	keepaliveInterval       = 20 * time.Second
	readBuffer              = 4 << 10
	keepaliveTimeout        = 10 * time.Second
	firstRefusals           = 20 // refused streams that are logged each; one in a second after that
)

// Options configure a Server. Cache and Authenticator are required.
type Options struct {
	Cache         *Cache
	Authenticator Authenticator
	// OnInterest is told of first and last subscribers, in order per name and outside all locks; it may call the Cache.
	// Changes that cancel each other out before it is called are not reported.
	OnInterest func(Interest)
	// OnAck is told of each ACK and NACK from the goroutine of the stream; it must not block.
	OnAck func(Ack)
	// Admit restricts what a proxy may subscribe to (name may be Wildcard). What it refuses is answered as if it did not
	// exist, and logged once per stream. nil allows everything in the proxy's own scope.
	Admit func(p Proxy, id ID) bool
	// Greet is what the header of a stream tells the proxy about itself; nil: nothing.
	Greet      func(ctx context.Context, p Proxy) metadata.MD
	Log        logr.Logger
	Registerer prometheus.Registerer
	// Kinds of proxies (Proxy.Kind) that the metrics show before the first one connects.
	Kinds []string
	// MaxStreams bounds the connected streams; 0 means defaultMaxStreams.
	MaxStreams int
	// maxSubscriptions bounds the names of one stream over all types; 0 means defaultMaxSubscriptions.
	maxSubscriptions int
	// maxResponseBytes is the size beyond which a response is split; 0 means defaultMaxResponseBytes.
	maxResponseBytes int
	// Lingering is for how long a cluster of a wildcard stays that nothing names any more; 0 means defaultLingering.
	Lingering time.Duration
	// Supersede ends the older stream of a pod when a newer one comes: set it where each pod has one stream, so that a
	// half-open connection does not linger in the acknowledgement book.
	Supersede bool
	// MaxAge, if set, ends each stream after about this long, so that its proxy authenticates anew. It says what it has
	// when it comes back, so that costs nothing else.
	MaxAge time.Duration
	// Relays: the clients are agents, which serve their Envoy by a Server of their own, so what only Envoy needs (the
	// endpoints of a cluster that is replaced, again) is left to them.
	Relays bool
}

// Server serves delta ADS. Make it with NewServer.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	opts      Options
	metrics   *metrics
	interests *interests
	book      *book
	// refusals limits what is logged about strangers: anyone may come with a bad token, as often as they like. The
	// metric counts all.
	refusals rate.Sometimes

	mu      sync.Mutex
	streams map[*stream]struct{}
	byPod   map[string]*stream // by pod UID, if Options.Supersede
}

// NewServer returns a server; Register makes it reachable.
func NewServer(opts Options) *Server {
	opts.MaxStreams = cmp.Or(opts.MaxStreams, defaultMaxStreams)
	opts.maxSubscriptions = cmp.Or(opts.maxSubscriptions, defaultMaxSubscriptions)
	opts.maxResponseBytes = cmp.Or(opts.maxResponseBytes, defaultMaxResponseBytes)
	opts.Lingering = cmp.Or(opts.Lingering, defaultLingering)
	if opts.Log.GetSink() == nil {
		opts.Log = logr.Discard()
	}
	s := &Server{
		opts:      opts,
		metrics:   newMetrics(opts.Registerer, opts.Kinds),
		interests: newInterests(opts.Cache, opts.OnInterest),
		book:      newBook(),
		refusals:  rate.Sometimes{First: firstRefusals, Interval: time.Second},
		streams:   map[*stream]struct{}{},
		byPod:     map[string]*stream{},
	}
	opts.Cache.onApply(func(scope Scope, changed []mark) {
		keys := make([]Key, 0, len(changed))
		for _, m := range changed {
			keys = append(keys, Key{scope, m.ID})
		}
		s.book.noteChanged(keys...)
	})
	return s
}

// GRPCOptions are the options that a gRPC server needs to serve xDS well: dead peers are noticed within half a minute,
// and a reconnecting proxy may list everything that it has. A connection without a stream ends after idle; zero: never.
// There are as many connections as proxies, and most say nothing for minutes: so none keeps large buffers.
func GRPCOptions(idle time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.ReadBufferSize(readBuffer), // those for writing are shared
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idle, Time: keepaliveInterval,
			Timeout: keepaliveTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: keepaliveInterval / 2, PermitWithoutStream: true}),
	}
}

// Register adds the aggregated discovery service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// DeltaAggregatedResources serves one proxy until its stream ends.
func (s *Server) DeltaAggregatedResources(
	g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	ctx, cancel := context.WithCancelCause(g.Context())
	defer cancel(nil)
	proxy, err := s.opts.Authenticator.Authenticate(ctx)
	if err != nil {
		s.metrics.refused.WithLabelValues(refusedFor(err)).Inc()
		s.refusals.Do(func() { s.opts.Log.Info("refused an xDS stream", "reason", err.Error()) })
		return authError(err)
	}
	if proxy.Scope == "" {
		s.metrics.refused.WithLabelValues("no_scope").Inc()
		return status.Error(codes.PermissionDenied,
			"this identity has no xDS scope: only waypoints and node proxies of the mesh are served")
	}
	st, err := s.admit(proxy, cancel)
	if err != nil {
		s.metrics.refused.WithLabelValues("limit").Inc()
		return err
	}
	defer s.dismiss(st)
	// The header tells the client that it is let in, before there is anything to send.
	header := metadata.MD{}
	if s.opts.Greet != nil {
		header = s.opts.Greet(ctx, proxy)
	}
	if err := g.SendHeader(header); err != nil {
		return err
	}
	return st.run(ctx, g)
}

// StreamAggregatedResources refuses the state-of-the-world variant.
func (s *Server) StreamAggregatedResources(
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	return status.Error(codes.Unimplemented, "only delta xDS is served here: set api_type DELTA_GRPC in ads_config")
}

// refusedFor is the label for a refusal: who the proxy is can't be told, is known and may not be served, or can't be
// asked.
func refusedFor(err error) string {
	switch status.Code(authError(err)) {
	case codes.PermissionDenied:
		return "forbidden"
	case codes.Unavailable:
		return "unavailable"
	default:
		return "unauthenticated"
	}
}

func authError(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Unauthenticated, "the xDS stream is not authenticated: "+err.Error())
}

// admit makes and counts a stream.
func (s *Server) admit(proxy Proxy, cancel context.CancelCauseFunc) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= s.opts.MaxStreams {
		return nil, status.Errorf(codes.ResourceExhausted, "the operator serves its maximum of %d streams: run more replicas",
			s.opts.MaxStreams)
	}
	st := newStream(s, proxy, cancel)
	s.streams[st] = struct{}{}
	if s.opts.Supersede && proxy.PodUID != "" {
		if old := s.byPod[proxy.PodUID]; old != nil {
			old.cancel(status.Error(codes.Aborted, "a newer stream of the same pod replaces this one"))
		}
		s.byPod[proxy.PodUID] = st
	}
	s.metrics.connected.WithLabelValues(proxy.Scope.kind()).Inc()
	return st, nil
}

// Disconnect ends the stream of a pod that is no more: what its token proved is no longer so. It needs
// Options.Supersede.
func (s *Server) Disconnect(podUID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.byPod[podUID]; st != nil {
		st.cancel(status.Error(codes.PermissionDenied, "the proxy's pod is gone or has ended"))
	}
}

// Evict ends the streams of the scopes that it is told: what let their proxies in is no longer so. They may ask again.
func (s *Server) Evict(whose func(Scope) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		if whose(st.proxy.Scope) {
			st.cancel(status.Error(codes.PermissionDenied, "the proxy's namespace is no longer in the mesh"))
		}
	}
}

// dismiss undoes admit and all subscriptions of the stream.
func (s *Server) dismiss(st *stream) {
	s.mu.Lock()
	delete(s.streams, st)
	if s.byPod[st.proxy.PodUID] == st {
		delete(s.byPod, st.proxy.PodUID)
	}
	s.mu.Unlock()
	s.metrics.connected.WithLabelValues(st.proxy.Scope.kind()).Dec()
	st.close()
}

// Proxies returns a snapshot of the connected streams, ordered by scope and pod.
func (s *Server) Proxies() []ProxyState {
	s.mu.Lock()
	streams := make([]*stream, 0, len(s.streams))
	for st := range s.streams {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	out := make([]ProxyState, 0, len(streams))
	for _, st := range streams {
		out = append(out, st.snapshot())
	}
	slices.SortFunc(out, func(a, b ProxyState) int {
		return cmp.Or(cmp.Compare(a.Proxy.Scope, b.Proxy.Scope), cmp.Compare(a.Proxy.Pod, b.Proxy.Pod),
			a.Connected.Compare(b.Connected))
	})
	return out
}
