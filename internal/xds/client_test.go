// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	testScope Scope = "waypoint/ns/gw"
	// patience bounds how long a test waits for what must happen.
	patience = 20 * time.Second
)

// fixture is a server on an in-memory connection. A stream's scope and pod come from its metadata.
type fixture struct {
	t      testing.TB
	cache  *Cache
	server *Server
	dial   func() *grpc.ClientConn
}

func newFixture(t testing.TB, tune func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, cache: NewCache()}
	opts := Options{Cache: f.cache, Authenticator: AuthenticatorFunc(func(ctx context.Context) (Proxy, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		get := func(k string) string { return strings.Join(md.Get(k), "") }
		if get("pod") == "" {
			return Proxy{}, errors.New("send a token")
		}
		return Proxy{Scope: Scope(get("scope")), Pod: get("pod"), PodUID: get("pod")}, nil
	}), Lingering: time.Nanosecond}
	if tune != nil {
		tune(&opts)
	}
	f.server = NewServer(opts)
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(GRPCOptions(0)...)
	f.server.Register(g)
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	f.dial = func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///bufconn",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	return f
}

func (f *fixture) apply(rs ...*Resource) {
	var ups []Update
	for _, r := range rs {
		ups = append(ups, Set(r))
	}
	f.cache.Apply(testScope, ups)
}

func (f *fixture) remove(typeURL string, names ...string) {
	var ups []Update
	for _, n := range names {
		ups = append(ups, Gone(ID{TypeURL: typeURL, Name: n}))
	}
	f.cache.Apply(testScope, ups)
}

func (f *fixture) ready(types ...string) {
	for _, u := range types {
		f.cache.Ready(testScope, u)
	}
}

// client is a delta xDS client as strict as Envoy where it matters, driven step by step.
type client struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	cancel context.CancelFunc
	in     chan *discoveryv3.DeltaDiscoveryResponse
	err    chan error
	// has is what the client accepted: type, name, version. gone are answers that a name does not exist.
	has  map[string]map[string]string
	gone map[string]map[string]bool
	// reject returns the error text for a resource, or empty.
	reject func(r *discoveryv3.Resource) string
}

func (f *fixture) connect(scope Scope, pod string) *client {
	f.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(
		context.Background(), "scope", string(scope), "pod", pod))
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.dial()).DeltaAggregatedResources(ctx)
	require.NoError(f.t, err)
	f.t.Cleanup(cancel)
	c := &client{
		t: f.t, stream: stream, cancel: cancel,
		in: make(chan *discoveryv3.DeltaDiscoveryResponse, 100), err: make(chan error, 1),
		has: map[string]map[string]string{}, gone: map[string]map[string]bool{},
	}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				c.err <- err
				return
			}
			c.in <- resp
		}
	}()
	return c
}

func (c *client) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	require.NoError(c.t, c.stream.Send(req))
}

func (c *client) subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (c *client) unsubscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: names})
}

// recv waits for a response without answering it.
func (c *client) recv() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case r := <-c.in:
		return r
	case err := <-c.err:
		require.NoError(c.t, err)
	case <-time.After(patience):
		require.Fail(c.t, "no response")
	}
	return nil
}

func (c *client) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	for _, res := range r.GetResources() {
		c.set(r.GetTypeUrl(), res.GetName(), res.GetVersion())
	}
	for _, name := range r.GetRemovedResources() {
		delete(c.has[r.GetTypeUrl()], name)
		if c.gone[r.GetTypeUrl()] == nil {
			c.gone[r.GetTypeUrl()] = map[string]bool{}
		}
		c.gone[r.GetTypeUrl()][name] = true
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

func (c *client) set(typeURL, name, version string) {
	if c.has[typeURL] == nil {
		c.has[typeURL] = map[string]string{}
	}
	c.has[typeURL][name] = version
	delete(c.gone[typeURL], name)
}

func (c *client) nack(r *discoveryv3.DeltaDiscoveryResponse, text string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(),
		ErrorDetail: &statuspb.Status{Code: 13, Message: text},
	})
}

// answer ACKs, or NACKs as a whole if c.reject refuses one of the resources (as Envoy does for RDS and EDS).
func (c *client) answer(r *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	var errs []string
	for _, res := range r.GetResources() {
		if c.reject != nil {
			if text := c.reject(res); text != "" {
				errs = append(errs, text)
			}
		}
	}
	if len(errs) > 0 {
		c.nack(r, strings.Join(errs, "; "))
		return
	}
	c.ack(r)
}

// expect waits for a response of a type that brings and removes exactly these names ("-name" is a removal), and ACKs
// it.
func (c *client) expect(typeURL string, names ...string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	r := c.recv()
	require.Equal(c.t, describe(typeURL, names), describe(r.GetTypeUrl(), contents(r)))
	c.ack(r)
	return r
}

// quiet proves that nothing is on its way: questions asked now are answered by the next responses. The first answer may
// overtake what is sent in the same go, the second can't.
func (c *client) quiet() {
	c.t.Helper()
	for range 2 {
		c.subscribe(probeType, "probe")
		r := c.recv()
		require.Equal(c.t, describe(probeType, []string{"-probe"}), describe(r.GetTypeUrl(), contents(r)))
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: probeType, ResponseNonce: r.GetNonce(),
			ResourceNamesUnsubscribe: []string{"probe"},
		})
	}
}

// probeType is a type that Options.Admit refuses in tests, so it is answered at once.
const probeType = resource.APITypePrefix + "test.Probe"

func refuseProbe(o *Options) {
	o.Admit = func(_ Proxy, id ID) bool { return id.TypeURL != probeType }
}

func contents(r *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, res := range r.GetResources() {
		out = append(out, res.GetName())
	}
	for _, name := range r.GetRemovedResources() {
		out = append(out, "-"+name)
	}
	return out
}

func describe(typeURL string, names []string) string {
	names = slices.Sorted(slices.Values(names))
	return fmt.Sprintf("%s %v", strings.TrimPrefix(typeURL, resource.APITypePrefix), names)
}

func must(t testing.TB, name string, m proto.Message) *Resource {
	t.Helper()
	r, err := NewResource(name, m)
	require.NoError(t, err)
	return r
}

// cluster, endpoints, listener and route make resources whose content follows v.
func cluster(t testing.TB, name string, v int) *Resource {
	return must(t, name, &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(v) * time.Second)})
}

func endpoints(t testing.TB, name string, v int) *Resource {
	return must(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{Priority: uint32(v)},
	}})
}

func listener(t testing.TB, name string, v int) *Resource {
	return must(t, name, &listenerv3.Listener{Name: name, StatPrefix: fmt.Sprint(v)})
}

func route(t testing.TB, name string, v int) *Resource {
	return must(t, name, &routev3.RouteConfiguration{
		Name: name, MostSpecificHeaderMutationsWins: v%2 == 1,
		VirtualHosts: []*routev3.VirtualHost{{Name: fmt.Sprint(v)}},
	})
}

func scopedRoute(t testing.TB, name string) *Resource {
	return must(t, name, &routev3.ScopedRouteConfiguration{Name: name, RouteConfigurationName: name})
}

func errorDetail(text string) *statuspb.Status { return &statuspb.Status{Code: 13, Message: text} }
