// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/utils/clock"

	"github.com/fairway-mesh/fairway/internal/serve"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// scope is the one scope of the local cache.
const scope xds.Scope = "local"

// Defaults of Options.
const (
	defaultFirstBackoff = 200 * time.Millisecond
	defaultBackoffMax   = 3 * time.Second // well below the time for which a connection waits for the operator
	defaultLinger       = 10 * time.Minute
	defaultMaxOnDemand  = 20000
	// maxEnvoys bounds local streams: one Envoy, two during a hot restart, and a person with a debugging client.
	maxEnvoys = 16
)

// Options configure a Relay. Dial is required.
type Options struct {
	// Dial makes the connection to the operator; see control.Operator. It is called once, by Run.
	Dial func() (*grpc.ClientConn, error)
	// NodeID goes into the first request, for the operator's logs; it proves nothing.
	NodeID string
	// Local lists the type URLs that the agent makes itself; they are never asked of the operator.
	Local []string
	// Adapt changes what the operator sends of some types for this node; it must give the same for the same.
	Adapt map[string]func(*anypb.Any) (*anypb.Any, error)
	// Accepted is told which configuration of a filter (ECDS) all connected Envoys have accepted, each time that one of
	// them says so: its name, version and bytes. It must not block. nil: nobody is.
	Accepted func(name, version string, packed *anypb.Any)
	// Ahead is told what the operator sends, and Envoy gets it when that returns; done is called then. Changed is told
	// that Current may be another; it must not block. nil: nobody is.
	Ahead   func(ctx context.Context, ids []xds.ID) (done func())
	Changed func()
	// Greeted is told what the operator's header says, before anything else that a stream brings; nil: nobody is.
	Greeted func(metadata.MD)
	// SnapshotPath is a file that keeps the relayed resources across restarts of the agent; empty keeps none. Secrets that
	// are Local are never in it.
	SnapshotPath string
	// SnapshotOfOthers: other agents may be writing the file. This one reads it, and writes it from KeepSnapshot on.
	SnapshotOfOthers bool
	// firstBackoff and backoffMax bound the wait between connection attempts; each wait is jittered. 0 means the default.
	firstBackoff, backoffMax time.Duration
	// linger is how long a resource stays subscribed that no Envoy has asked for again since it reconnected. 0 means
	// defaultLinger.
	linger time.Duration
	// MaxEndpoints bounds the endpoints that Envoy holds beyond leastEndpoints of each cluster; clusters that find no room
	// get fewer than there are. NodeID picks which. 0: no bound.
	MaxEndpoints int
	// MaxOnDemand bounds the clusters that Envoy has because it asked for them by name; see Prefer. 0 means
	// defaultMaxOnDemand.
	MaxOnDemand int
	// Register adds what Envoy is served besides xDS, Beside what the agent says to the operator besides, until ctx ends,
	// over the same connection; nil: nothing.
	Register   func(grpc.ServiceRegistrar)
	Beside     func(ctx context.Context, conn *grpc.ClientConn) error
	Log        logr.Logger
	Registerer prometheus.Registerer
	// Clock is for tests; nil: the real one.
	Clock clock.PassiveClock
}

// Status of the stream to the operator.
type Status struct {
	Connected bool
	// Since is when Connected became what it is.
	Since time.Time
	// LastError is why the last attempt or stream ended; empty while connected.
	LastError string
}

// Relay joins Envoy, the agent and the operator. Make it with New; then Run and Serve.
type Relay struct {
	opts    Options
	cache   *xds.Cache
	server  *xds.Server
	metrics *metrics
	log     logr.Logger
	local   map[string]bool
	demand  *demand

	onLocalInterest func(xds.Interest)

	wake  wake.Signal // there is something to tell the operator
	hurry wake.Signal // Envoy asks for something new
	save  wake.Signal // the snapshot is out of date
	asks  wake.Signal // an address waits for Prefer

	keeps atomic.Bool // the snapshot is written here

	mu     sync.Mutex
	types  map[string]*relayed
	status Status
	// room for addresses and endpoints, and whether the log says that there is none left.
	room                *room
	contexts            contexts
	nowhere             nowhere
	saidShort, saidFull bool
	// own are names of relayed types that the agent sets itself: they are not asked of the operator.
	own     map[string]map[string]bool
	waiters map[xds.ID]map[wake.Signal]struct{}
}

// New returns a relay that already serves the snapshot, if there is a good one.
func New(opts Options) (*Relay, error) {
	if opts.Dial == nil {
		return nil, errors.New("relay: Options.Dial is required")
	}
	opts.firstBackoff = cmp.Or(opts.firstBackoff, defaultFirstBackoff)
	opts.backoffMax = cmp.Or(opts.backoffMax, defaultBackoffMax)
	opts.linger = cmp.Or(opts.linger, defaultLinger)
	opts.MaxOnDemand = cmp.Or(opts.MaxOnDemand, defaultMaxOnDemand)
	if opts.Log.GetSink() == nil {
		opts.Log = logr.Discard()
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	r := &Relay{
		opts: opts, cache: xds.NewCache(), log: opts.Log, metrics: newMetrics(opts.Registerer),
		wake: wake.New(), hurry: wake.New(), save: wake.New(), asks: wake.New(),
		local: map[string]bool{}, types: map[string]*relayed{}, own: map[string]map[string]bool{},
		waiters: map[xds.ID]map[wake.Signal]struct{}{}, room: newRoom(opts.MaxEndpoints, opts.MaxOnDemand),
		contexts: noContexts(), nowhere: noNowhere(),
		status: Status{Since: time.Now(), LastError: "not tried yet"},
	}
	r.keeps.Store(!opts.SnapshotOfOthers)
	for _, url := range opts.Local {
		r.local[url] = true
	}
	r.demand = &demand{
		limit: opts.MaxOnDemand * namesPerAddress, log: opts.Log, refused: r.metrics.refused, names: map[string]struct{}{},
	}
	r.server = xds.NewServer(xds.Options{
		Cache: r.cache,
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: scope, Pod: "envoy"}, nil
		}),
		OnInterest: r.interest,
		Admit:      r.demand.admit,
		Log:        opts.Log,
		Registerer: opts.Registerer,
		MaxStreams: maxEnvoys,
	})
	r.server.OnChange(func(keys ...xds.Key) {
		for _, k := range keys {
			r.noteChanged(k.ID)
		}
	})
	if err := r.restore(); err != nil {
		r.log.Error(err, "no snapshot is served; everything comes from the operator", "path", opts.SnapshotPath)
	}
	return r, nil
}

// Run keeps the stream to the operator and the snapshot until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	conn, err := r.opts.Dial()
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer func() { _ = conn.Close() }()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.connectForever(ctx, conn) })
	group.Go(func() error { return r.saveForever(ctx) })
	group.Go(func() error { return r.sweepForever(ctx) })
	if r.opts.Beside != nil {
		group.Go(func() error { return r.opts.Beside(ctx, conn) })
	}
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// OnLocalInterest has fn told what Envoy wants of the Local types, such as a secret at the first handshake. It is set
// before Serve, called by one goroutine and may call SetLocal.
func (r *Relay) OnLocalInterest(fn func(xds.Interest)) { r.onLocalInterest = fn }

// Serve answers Envoy on a listener (see Listen) until ctx ends. It may be called before Run, and for several
// listeners.
func (r *Relay) Serve(ctx context.Context, lis net.Listener) error {
	g := grpc.NewServer(xds.GRPCOptions(0)...)
	r.server.Register(g)
	if r.opts.Register != nil {
		r.opts.Register(g)
	}
	if err := serve.GRPC(ctx, g, lis); err != nil {
		return fmt.Errorf("relay: serving xDS on %s: %w", lis.Addr(), err)
	}
	return nil
}

// Status tells whether the operator is reached.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Proxies is what the connected Envoys have; see xds.Server.
func (r *Relay) Proxies() []xds.ProxyState { return r.server.Proxies() }

// state is what the connected Envoys made of a resource; see xds.Server.
func (r *Relay) state(id xds.ID) xds.ResourceState {
	return r.server.State(xds.Key{Scope: scope, ID: id})
}

// setStatus notes a change.
func (r *Relay) setStatus(connected bool, why string) {
	r.mu.Lock()
	if r.status.Connected != connected {
		r.status.Connected, r.status.Since = connected, time.Now()
	}
	r.status.LastError = why
	now := r.status
	r.mu.Unlock()
	r.metrics.setConnected(now)
}
