// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"cmp"
	"context"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	domain             = "mesh.test"
	scope    xds.Scope = "waypoint/shop/wp"
	route              = "service/shop/cart/80"
	patience           = 10 * time.Second
)

var quick = times{
	grace: 50 * time.Millisecond, heartbeat: 100 * time.Millisecond, postpone: time.Millisecond, age: time.Hour,
	retry: time.Millisecond, retryMax: 10 * time.Millisecond,
}

// long is for tests in which no time of grace may end.
func long(t times) times { t.grace = time.Hour; return t }

func newAuthority(t testing.TB) *identity.Authority {
	t.Helper()
	root, err := identity.NewRoot(domain, time.Hour, time.Now())
	require.NoError(t, err)
	a := identity.NewAuthority(nil)
	s, _ := identity.State{}.Step(identity.Observed{Signer: root, TrustDomain: domain, LeafLifetime: time.Hour},
		identity.DefaultPolicy, time.Now())
	a.Update(s)
	return a
}

// replica is an operator's xDS server and book. Its engine derives what is asked for from route tables of a given text.
type replica struct {
	t      testing.TB
	cache  *xds.Cache
	server *xds.Server
	book   *Book
	stop   func()
	addr   string
	dial   func() *grpc.ClientConn

	mu     sync.Mutex
	text   string
	wanted map[xds.Key]bool
	left   []xds.Interest
	notes  []string
}

func newReplica(t testing.TB, a *identity.Authority, tm times) *replica {
	t.Helper()
	r := &replica{t: t, cache: xds.NewCache(), text: "1", wanted: map[xds.Key]bool{}}
	interests := NewInterests(r.interest)
	r.server = xds.NewServer(xds.Options{
		Cache: r.cache, OnInterest: interests.Here,
		Authenticator: xds.AuthenticatorFunc(func(ctx context.Context) (xds.Proxy, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			pod := strings.Join(md.Get("pod"), "")
			return xds.Proxy{
				Scope: cmp.Or(xds.Scope(strings.Join(md.Get("scope"), "")), scope), Pod: "shop/" + pod,
				PodUID: "uid-" + pod,
			}, nil
		}),
	})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.addr = ln.Addr().String()
	r.book = New(Options{
		Local: r.server, TLS: a.MutualConfig(names.SystemNamespace, names.OperatorServiceAccount), listener: ln,
		Interests: interests, OnNote: r.heard, OnFact: r.heard, Log: testLog(t), times: tm,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.book.Start(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-done) })
	t.Cleanup(r.stop)

	pipe := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xds.GRPCOptions(0)...)
	r.server.Register(g)
	go func() { _ = g.Serve(pipe) }()
	t.Cleanup(g.Stop)
	r.dial = func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///bufconn",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	return r
}

// pair is two replicas that follow each other.
func pair(t testing.TB, tm times) (a, b *replica) {
	t.Helper()
	ca := newAuthority(t)
	a, b = newReplica(t, ca, tm), newReplica(t, ca, tm)
	a.book.SetPeers([]string{b.addr})
	b.book.SetPeers([]string{a.addr})
	return a, b
}

func (r *replica) heard(note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, note)
}

// knows tells whether these are the notes that were heard, in order.
func (r *replica) knows(notes ...string) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Equal(r.notes, notes)
	}
}

func (r *replica) interest(i xds.Interest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := i.Key
	if !i.Wanted {
		delete(r.wanted, k)
		r.left = append(r.left, i)
		return
	}
	r.wanted[k] = true
	r.derive(k)
}

func (r *replica) derive(k xds.Key) {
	switch k.TypeURL {
	case xds.TypeRoute:
		res, err := xds.NewResource(k.Name, &routev3.RouteConfiguration{
			Name:         k.Name,
			VirtualHosts: []*routev3.VirtualHost{{Name: r.text}},
		})
		require.NoError(r.t, err)
		r.cache.Apply(k.Scope, []xds.Update{xds.Set(res)})
	case xds.TypeCluster:
		timeout, err := time.ParseDuration(r.text + "s")
		require.NoError(r.t, err)
		res, err := xds.NewResource(k.Name, &clusterv3.Cluster{
			Name: k.Name, ConnectTimeout: durationpb.New(timeout), ClusterDiscoveryType: &clusterv3.Cluster_Type{
				Type: clusterv3.Cluster_EDS,
			},
		})
		require.NoError(r.t, err)
		r.cache.Apply(k.Scope, []xds.Update{xds.Set(res)})
	case xds.TypeExtension:
		res, err := xds.NewResource(k.Name, &corev3.TypedExtensionConfig{
			Name: k.Name, TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/" + r.text},
		})
		require.NoError(r.t, err)
		r.cache.Apply(k.Scope, []xds.Update{xds.Set(res)})
	case xds.TypeListener:
		res, err := xds.NewResource(names.ListenerMTLS, &listenerv3.Listener{Name: names.ListenerMTLS})
		require.NoError(r.t, err)
		r.cache.Apply(k.Scope, []xds.Update{xds.Set(res)})
		r.cache.Ready(k.Scope, k.TypeURL)
	}
}

// edit changes the content of all routes that are derived here.
func (r *replica) edit(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = text
	for k := range r.wanted {
		r.derive(k)
	}
}

func (r *replica) wants(k xds.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted[k]
}

// tally counts what the replica knows of the route's proxies.
func (r *replica) tally() (acked, pending, rejected int) {
	for _, p := range r.book.State(scope.Key(xds.TypeRoute, route)).Proxies {
		switch p.State {
		case xds.Acked:
			acked++
		case xds.Pending:
			pending++
		case xds.Rejected:
			rejected++
		}
	}
	return acked, pending, rejected
}

func (r *replica) says(acked, pending, rejected int) func() bool {
	return func() bool {
		a, p, n := r.tally()
		return a == acked && p == pending && n == rejected
	}
}

// proxy connects a waypoint's proxy that acknowledges all but the routes for which reject has a text.
func (r *replica) proxy(pod string, reject string) (leave func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "pod", pod))
	r.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.dial()).DeltaAggregatedResources(ctx)
	require.NoError(r.t, err)
	require.NoError(r.t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener}))
	require.NoError(r.t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: xds.TypeRoute, ResourceNamesSubscribe: []string{route},
	}))
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return
			}
			answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
			if resp.GetTypeUrl() == xds.TypeRoute && reject != "" {
				answer.ErrorDetail = &statuspb.Status{Message: reject}
			}
			if stream.Send(answer) != nil {
				return
			}
		}
	}()
	return cancel
}

// node connects a node proxy that has dialled an address and acknowledges what that leads to, the later versions once
// it is let.
func (r *replica) node(name, address string, let <-chan struct{}) {
	r.t.Helper()
	r.nodeOf(name, xds.TypeCluster, address, let)
}

// nodeOf connects a node proxy that has one resource. It acknowledges the first version, and later ones once it is let.
func (r *replica) nodeOf(name, typeURL, resource string, let <-chan struct{}) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(
		context.Background(), "pod", name, "scope", string(catalogue.NodeScope(name))))
	r.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.dial()).DeltaAggregatedResources(ctx)
	require.NoError(r.t, err)
	require.NoError(r.t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResourceNamesSubscribe: []string{resource},
	}))
	go func() {
		for first := true; ; first = false {
			resp, err := stream.Recv()
			if err != nil {
				return
			}
			if !first {
				select {
				case <-let:
				case <-ctx.Done():
					return
				}
			}
			if stream.Send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce(),
			}) != nil {
				return
			}
		}
	}()
}

// fixed is a book that never changes by itself.
type fixed struct{ states map[xds.Key]xds.ResourceState }

func (f *fixed) State(k xds.Key) xds.ResourceState { return f.states[k] }
func (f *fixed) OnChange(func(...xds.Key)) func()  { return func() {} }
func (f *fixed) Proxies() []xds.ProxyState         { return nil }

// testLog drops what is logged: goroutines of a server may outlive the test.
func testLog(t testing.TB) logr.Logger { return testr.New(t.(*testing.T)) }

// newSignal is a logger that tells when something was logged.
func newSignal(c chan<- struct{}) *log.Logger { return log.New(signal(c), "", 0) }

type signal chan<- struct{}

func (s signal) Write(p []byte) (int, error) {
	select {
	case s <- struct{}{}:
	default:
	}
	return len(p), nil
}

// connected counts the proxies that have asked for their listeners, as a book knows them.
func connected(b *Book) int {
	return len(b.State(scope.Key(xds.TypeListener, names.ListenerMTLS)).Proxies)
}
