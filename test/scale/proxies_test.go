// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// proxy is the stream of an agent: it asks for what its Envoy would ask for, remembers what it has, says so when it
// comes back, and accepts everything.
type proxy struct {
	token  string
	source netip.Addr
	// asks are the names that it asks for by itself; all that a waypoint is to have, besides.
	asks map[string][]string
	// to tells which operator to ask next.
	to   func() netip.Addr
	tls  *tls.Config
	wake wake.Signal

	mu    sync.Mutex
	types map[string]*asked
	epoch int // counts resets: what an earlier stream still brings is of no interest
	got   received
	at    netip.Addr // the operator that it is connected to
	err   error      // why it has no stream
	// told is told of each resource.
	told func(*discoveryv3.Resource)
}

// tell has a function told of each resource of a type from now on, and no other one.
func (p *proxy) tell(typeURL string, told func(*discoveryv3.Resource)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = func(r *discoveryv3.Resource) {
		if r.GetResource().GetTypeUrl() == typeURL {
			told(r)
		}
	}
}

// want asks for another name.
func (p *proxy) want(url, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ask(url, name)
}

// received is what a proxy was sent.
type received struct {
	responses, resources int
	bytes                int64
	// again are resources that it had, in the version that it had, and had not asked for again.
	again int
}

// asked is a type of resources.
type asked struct {
	// names that are asked for, and whether that was answered since it was asked last.
	names map[string]bool
	held  map[string]string // versions
	leads map[string]string // what a resource made it ask for, of the type that its own leads to
	// say are names to ask for or to leave, and nonces to acknowledge.
	ask, leave, nonces []string
	opened             bool
}

// wildcards of waypoints.
var wildcards = []string{xds.TypeListener, xds.TypeCluster, xds.TypeScopedRoute}

var errNotYet = errors.New("it has yet to connect")

// reset has it forget all that it has.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.types, p.err = map[string]*asked{}, errNotYet
	p.epoch++
	for url, all := range p.asks {
		for _, name := range all {
			p.ask(url, name)
		}
	}
}

// ask asks for a name, again if it was asked for. The lock is held.
func (p *proxy) ask(url, name string) {
	t := p.types[url]
	if t == nil {
		t = &asked{names: map[string]bool{}, held: map[string]string{}, leads: map[string]string{}}
		p.types[url] = t
	}
	t.names[name] = false
	t.ask = append(t.ask, name)
	p.wake.Set()
}

// leave asks no more. The lock is held.
func (p *proxy) leave(url, name string) {
	t := p.types[url]
	delete(t.names, name)
	delete(t.held, name)
	t.leave = append(t.leave, name)
}

// missing counts what is asked and not answered; a proxy without a stream misses something.
func (p *proxy) missing() (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.types {
		for _, answered := range t.names {
			if !answered {
				n++
			}
		}
	}
	if p.err != nil {
		n = max(n, 1)
	}
	return n, p.err
}

func (p *proxy) received() received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

// run keeps a stream until the context ends. Pauses are those of agents (internal/agent/relay).
func (p *proxy) run(ctx context.Context) {
	const first, longest = 200 * time.Millisecond, 3 * time.Second
	pause := first
	for ctx.Err() == nil {
		accepted, err := p.stream(ctx, p.to())
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		if accepted {
			pause = first
		}
		wake.After(ctx, pause)
		pause = min(2*pause, longest)
	}
}

func (p *proxy) stream(ctx context.Context, operator netip.Addr) (accepted bool, err error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token))
	defer cancel()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.source, 0))}
	conn, err := grpc.NewClient("passthrough:///"+netip.AddrPortFrom(operator, names.PortXDS).String(),
		grpc.WithTransportCredentials(credentials.NewTLS(p.tls)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx,
		grpc.MaxCallRecvMsgSize(256<<20))
	if err != nil {
		return false, err
	}
	if md, err := s.Header(); err != nil || md == nil {
		_, err = s.Recv()
		return false, fmt.Errorf("not let in: %w", err)
	}
	epoch := p.open(operator)
	failed := make(chan error, 1)
	go func() {
		for {
			resp, err := s.Recv()
			if err != nil {
				failed <- err
				return
			}
			p.take(epoch, resp)
		}
	}()
	for {
		for _, r := range p.requests() {
			if err := s.Send(r); err != nil {
				return true, <-failed
			}
		}
		select {
		case <-p.wake:
		case err := <-failed:
			return true, err
		}
	}
}

// open begins anew: what is asked is said once more, with the versions that are there. One name is asked for once
// again, so that it is known when the operator serves the proxy, though it has all.
func (p *proxy) open(operator netip.Addr) (epoch int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.err = operator, nil
	for _, t := range p.types {
		t.opened, t.ask, t.leave, t.nonces = false, nil, nil, nil
	}
	if t := p.types[xds.TypeEndpoint]; t != nil && len(t.held) > 0 {
		p.ask(xds.TypeEndpoint, slices.Min(slices.Collect(maps.Keys(t.held))))
	}
	p.wake.Set()
	return p.epoch
}

// requests are what is to be said, in the order in which agents say it.
func (p *proxy) requests() []*discoveryv3.DeltaDiscoveryRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*discoveryv3.DeltaDiscoveryRequest
	for _, url := range []string{
		xds.TypeCluster, xds.TypeEndpoint, xds.TypeExtension, xds.TypeListener, xds.TypeRoute, xds.TypeScopedRoute,
		xds.TypeRuntime,
	} {
		t := p.types[url]
		if t == nil {
			continue
		}
		if !t.opened {
			t.opened = true
			all := slices.Sorted(maps.Keys(t.names))
			out = append(out, &discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: url, ResourceNamesSubscribe: all, InitialResourceVersions: maps.Clone(t.held),
			})
			t.ask = slices.DeleteFunc(t.ask, func(name string) bool { return t.held[name] == "" })
		}
		if len(t.ask)+len(t.leave) > 0 {
			out = append(out, &discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: url, ResourceNamesSubscribe: t.ask, ResourceNamesUnsubscribe: t.leave,
			})
		}
		for _, nonce := range t.nonces {
			out = append(out, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce})
		}
		t.ask, t.leave, t.nonces = nil, nil, nil
	}
	return out
}

// take takes a response in.
func (p *proxy) take(epoch int, r *discoveryv3.DeltaDiscoveryResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch != p.epoch {
		return
	}
	t := p.types[r.GetTypeUrl()]
	p.got.responses++
	p.got.resources += len(r.GetResources())
	p.got.bytes += int64(proto.Size(r))
	for _, res := range r.GetResources() {
		name, version := res.GetName(), res.GetVersion()
		answered, named := t.names[name]
		if t.held[name] == version && (answered || !named) {
			p.got.again++
		}
		t.held[name] = version
		if named {
			t.names[name] = true
		}
		p.follow(t, name, res)
		if p.told != nil {
			p.told(res)
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(t.held, name)
		if _, named := t.names[name]; named {
			t.names[name] = true
		}
		if led, ok := t.leads[name]; ok {
			delete(t.leads, name)
			p.leave(leads[r.GetTypeUrl()], led)
		}
	}
	if _, all := t.names[xds.Wildcard]; all {
		t.names[xds.Wildcard] = true
	}
	t.nonces = append(t.nonces, r.GetNonce())
	p.wake.Set()
}

// leads are the types that resources of a type make Envoy ask for.
var leads = map[string]string{xds.TypeCluster: xds.TypeEndpoint, xds.TypeScopedRoute: xds.TypeRoute}

// follow asks for what a resource names. The lock is held.
func (p *proxy) follow(t *asked, name string, res *discoveryv3.Resource) {
	led := ""
	switch res.GetResource().GetTypeUrl() {
	case xds.TypeCluster:
		var c clusterv3.Cluster
		if res.GetResource().UnmarshalTo(&c) == nil && c.GetType() == clusterv3.Cluster_EDS {
			led = c.GetEdsClusterConfig().GetServiceName()
		}
	case xds.TypeScopedRoute:
		var s routev3.ScopedRouteConfiguration
		if res.GetResource().UnmarshalTo(&s) == nil {
			led = s.GetRouteConfigurationName()
		}
	}
	was := t.leads[name]
	if led == was {
		return
	}
	to := leads[res.GetResource().GetTypeUrl()]
	if was != "" {
		p.leave(to, was)
	}
	if t.leads[name] = led; led != "" {
		p.ask(to, led)
	}
}

// fleet are all proxies.
type fleet struct {
	proxies []*proxy

	mu        sync.Mutex
	operators []netip.Addr // to ask, each proxy that of its place
}

// lose has those miss something that are connected to an operator which is to end, until they are connected again.
func (f *fleet) lose(at *operator) {
	for _, p := range f.proxies {
		p.mu.Lock()
		if p.at == at.address {
			p.err = errNotYet
		}
		p.mu.Unlock()
	}
}

// missing counts what is not answered, of all, and says why proxies have no stream.
func (f *fleet) missing() (n int, err error) {
	for _, p := range f.proxies {
		m, e := p.missing()
		n += m
		if e != nil {
			err = e
		}
	}
	return n, err
}

// served fails as long as something is missing.
func (f *fleet) served() error {
	n, err := f.missing()
	if n > 0 {
		return fmt.Errorf("%d names are not answered; %w", n, err)
	}
	return err
}

// received sums up what all were sent.
func (f *fleet) received() (sum received) {
	for _, p := range f.proxies {
		r := p.received()
		sum.responses += r.responses
		sum.resources += r.resources
		sum.bytes += r.bytes
		sum.again += r.again
	}
	return sum
}

// responses of each proxy.
func (f *fleet) responses() []int {
	out := make([]int, len(f.proxies))
	for n, p := range f.proxies {
		out[n] = p.received().responses
	}
	return out
}
