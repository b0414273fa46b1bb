// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	nodeScope xds.Scope = "node/n1"
	patience            = 20 * time.Second
)

// operator is a fake one: a real xds.Server that can go away and come back with the same cache.
type operator struct {
	t      testing.TB
	socket string
	cache  *xds.Cache

	mu        sync.Mutex
	server    *xds.Server
	grpc      *grpc.Server
	interests map[string]bool
	greeting  metadata.MD
}

func newOperator(t testing.TB) *operator {
	o := &operator{
		t: t, socket: filepath.Join(shortDir(t), "operator.sock"), cache: xds.NewCache(),
		interests: map[string]bool{},
	}
	o.start()
	t.Cleanup(o.stop)
	return o
}

func (o *operator) start() {
	lis, err := net.Listen("unix", o.socket)
	require.NoError(o.t, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.server = xds.NewServer(xds.Options{
		Cache: o.cache, Relays: true, Supersede: true,
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: nodeScope, Pod: "fairway-system/node-1", PodUID: "uid"}, nil
		}),
		Greet: func(context.Context, xds.Proxy) metadata.MD {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.greeting
		},
		OnInterest: func(i xds.Interest) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.interests[i.TypeURL+" "+i.Name] = i.Wanted
		},
	})
	o.grpc = grpc.NewServer(xds.GRPCOptions(0)...)
	o.server.Register(o.grpc)
	go func(g *grpc.Server) { _ = g.Serve(lis) }(o.grpc)
}

func (o *operator) stop() {
	o.mu.Lock()
	g := o.grpc
	o.mu.Unlock()
	g.Stop()
}

// greets with this from the next stream on.
func (o *operator) greets(md metadata.MD) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.greeting = md
}

func (o *operator) wants(typeURL, name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.interests[typeURL+" "+name]
}

func (o *operator) apply(rs ...*xds.Resource) { o.cache.Apply(nodeScope, updates(rs...)) }

func (o *operator) remove(typeURL, name string) {
	o.cache.Apply(nodeScope, []xds.Update{xds.Gone(xds.ID{TypeURL: typeURL, Name: name})})
}

// state is what the operator's book says of a resource: its one proxy, or nothing.
func (o *operator) state(r *xds.Resource) (xds.AckState, string) {
	o.mu.Lock()
	s := o.server.State(nodeScope.Key(r.TypeURL(), r.Name()))
	o.mu.Unlock()
	if s.Version != r.Version() || len(s.Proxies) != 1 {
		return "", ""
	}
	return s.Proxies[0].State, s.Proxies[0].Error
}

func (o *operator) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+o.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// agent is a running relay.
type agent struct {
	*Relay
	t      testing.TB
	socket string
	stop   func()
}

func startRelay(t testing.TB, opts Options) *agent {
	t.Helper()
	opts.firstBackoff, opts.backoffMax = time.Millisecond, 20*time.Millisecond
	r, err := New(opts)
	require.NoError(t, err)
	a := &agent{Relay: r, t: t, socket: filepath.Join(shortDir(t), "xds.sock")}
	lis, err := Listen(a.socket, uint32(os.Getuid()))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { require.NoError(t, r.Serve(ctx, lis)) })
	group.Go(func() { require.NoError(t, r.Run(ctx)) })
	a.stop = func() { cancel(); group.Wait() }
	t.Cleanup(a.stop)
	return a
}

// fakeEnvoy accepts everything but what reject names, one response at a time.
type fakeEnvoy struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	stop   func()

	mu     sync.Mutex
	has    map[string]string // type and name: version
	gone   map[string]bool
	reject map[string]string // version: text
	hold   chan struct{}     // while not nil, no answer is sent until it is closed
	heard  int               // responses
}

func (a *agent) envoy(reject map[string]string) *fakeEnvoy {
	a.t.Helper()
	conn, err := grpc.NewClient("unix:"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(a.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	require.NoError(a.t, err)
	e := &fakeEnvoy{t: a.t, stream: stream, has: map[string]string{}, gone: map[string]bool{}, reject: reject}
	done := make(chan struct{})
	go func() { defer close(done); e.run() }()
	e.stop = func() { cancel(); <-done; _ = conn.Close() }
	a.t.Cleanup(e.stop)
	return e
}

func (e *fakeEnvoy) run() {
	for {
		resp, err := e.stream.Recv()
		if err != nil {
			return
		}
		e.mu.Lock()
		hold, text := e.hold, ""
		e.heard++
		for _, r := range resp.GetResources() {
			if t := e.reject[r.GetVersion()]; t != "" {
				text = t
			}
		}
		if text == "" {
			for _, r := range resp.GetResources() {
				e.has[resp.GetTypeUrl()+" "+r.GetName()] = r.GetVersion()
			}
			for _, name := range resp.GetRemovedResources() {
				delete(e.has, resp.GetTypeUrl()+" "+name)
				e.gone[resp.GetTypeUrl()+" "+name] = true
			}
		}
		e.mu.Unlock()
		if hold != nil {
			<-hold
		}
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
		if text != "" {
			req.ErrorDetail = &statuspb.Status{Code: 13, Message: text}
		}
		if e.stream.Send(req) != nil {
			return
		}
	}
}

func (e *fakeEnvoy) subscribe(typeURL string, names ...string) {
	e.t.Helper()
	require.NoError(e.t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResourceNamesSubscribe: names,
	}))
}

func (e *fakeEnvoy) unsubscribe(typeURL string, names ...string) {
	e.t.Helper()
	require.NoError(e.t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResourceNamesUnsubscribe: names,
	}))
}

func (e *fakeEnvoy) runs(r *xds.Resource) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.has[r.TypeURL()+" "+r.Name()] == r.Version()
}

func (e *fakeEnvoy) knowsGone(typeURL, name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone[typeURL+" "+name]
}

func (e *fakeEnvoy) responses() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard
}

func (e *fakeEnvoy) snapshot() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.has)
}

func updates(rs ...*xds.Resource) []xds.Update {
	var out []xds.Update
	for _, r := range rs {
		out = append(out, xds.Set(r))
	}
	return out
}

func must(t testing.TB, name string, m proto.Message) *xds.Resource {
	t.Helper()
	r, err := xds.NewResource(name, m)
	require.NoError(t, err)
	return r
}

func cluster(t testing.TB, name string, v int) *xds.Resource {
	return must(t, name, &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(v) * time.Second)})
}

func endpoints(t testing.TB, name string, v int) *xds.Resource {
	return must(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{Priority: uint32(v)},
	}})
}

func listener(t testing.TB, name string) *xds.Resource {
	return must(t, name, &listenerv3.Listener{Name: name})
}

// shortDir is a directory whose path leaves room for the name of a Unix socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func count(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func contains(s, part string) bool { return strings.Contains(s, part) }

// list returns the resources of a type that are served, sorted by name.
func (r *Relay) list(typeURL string) []*xds.Resource { return r.cache.List(scope, typeURL) }
