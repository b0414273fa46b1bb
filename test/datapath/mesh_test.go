// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/counting"
	"github.com/fairway-mesh/fairway/internal/agent/neighbours"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/testca"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

const trustDomain = "cluster.local"

// podRange and serviceRange are what pods are captured for.
var (
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
	serviceRange = netip.MustParsePrefix("10.96.0.0/16")
	uplinkRange  = netip.MustParsePrefix("192.168.100.0/24")
	gateway      = netip.MustParseAddr("169.254.1.1")
	gateway6     = netip.MustParseAddr("fd00:fe::1")
	ranges       = []netip.Prefix{
		podRange, serviceRange, netip.MustParsePrefix("fd00:244::/32"),
		netip.MustParsePrefix("fd00:96::/64"),
	}
)

// mesh is two nodes, joined by a link.
type mesh struct {
	t     testing.TB
	ca    *testca.CA
	cache *xds.Cache
	nodes []*meshNode

	mu           sync.Mutex
	destinations map[string]model.Destination
	// members are the pods that joined, by "namespace/name".
	members map[string]*pod
	// neighbours: pods connect to those of their node by one pass of the proxy, as the nodes' keepers tell it.
	neighbours bool
	// said is what the operator says, by scope and type.
	said map[xds.Scope]map[string]map[string]*xds.Resource
	// retell is how often proxies tell of what is open, unless zero.
	retell time.Duration
}

// meshNode is a node with its proxy.
type meshNode struct {
	mesh   *mesh
	name   string
	ns     *netns.Namespace
	addr   netip.Addr
	mark   proxymark.Mark
	socket string
	xds    *grpc.Server
	proxy  *proxy
	pods   int
	// tolerant: rejected configuration is part of the test.
	tolerant atomic.Bool
	server   *xds.Server
	counter  *counting.Counter
	// keeper ends what guards refuse, until stopKeeping.
	keeper      atomic.Pointer[connections.Keeper]
	near        atomic.Pointer[neighbours.Keeper] // nil: none
	stopKeeping func()
	uplink      int // index of the interface to the other node
}

// pod is a namespace with an address, on a node.
type pod struct {
	mesh     *mesh
	node     *meshNode
	name     string
	ns       *netns.Namespace
	veth     string // at the node's end
	addr     netip.Addr
	addr6    netip.Addr // unless the pod has IPv4 only
	identity string
	// namespace is "default" unless a test says else before the pod joins.
	namespace string
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	netnstest.NeedRoot(t)
	xdstest.Binary(t) // or skip before anything is made
	m := &mesh{
		t: t, ca: testca.New(t, trustDomain), cache: xds.NewCache(), destinations: map[string]model.Destination{},
		members: map[string]*pod{}, said: map[xds.Scope]map[string]map[string]*xds.Resource{},
	}
	for i, name := range []string{"n1", "n2"} {
		n := &meshNode{
			mesh: m, name: name, ns: netnstest.New(t, name), addr: uplinkRange.Addr().Next(),
			mark: proxymark.From(uint32(i), uint32(i)+1),
		}
		if i == 1 {
			n.addr = n.addr.Next()
		}
		netnstest.Sysctl(t, n.ns, "net/ipv4/ip_forward", "1")
		m.nodes = append(m.nodes, n)
	}
	a, b := m.nodes[0], m.nodes[1]
	netnstest.Link(t, a.ns, "uplink", b.ns, "uplink")
	for _, n := range m.nodes {
		netnstest.Address(t, n.ns, "uplink", netip.PrefixFrom(n.addr, uplinkRange.Bits()))
		n.uplink = netnstest.Index(t, n.ns, "uplink")
		n.serve()
		n.proxy = startProxy(t, n)
	}
	netnstest.Route(t, a.ns, "uplink", b.podRange(), b.addr)
	netnstest.Route(t, b.ns, "uplink", a.podRange(), a.addr)
	return m
}

func (n *meshNode) scope() xds.Scope { return catalogue.NodeScope(n.name) }

// podRange of the node.
func (n *meshNode) podRange() netip.Prefix {
	b := podRange.Addr().As4()
	b[2] = n.addr.As4()[3]
	return netip.PrefixFrom(netip.AddrFrom4(b), 24)
}

// serve starts the node's xDS server: agent and operator in one.
func (n *meshNode) serve() {
	t := n.mesh.t
	if n.socket == "" {
		n.socket = filepath.Join(t.TempDir(), "xds.sock")
	}
	l, err := net.Listen("unix", n.socket)
	require.NoError(t, err)
	server := xds.NewServer(xds.Options{
		Cache: n.mesh.cache,
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: n.scope(), Pod: "fairway-system/node-" + n.name, PodUID: n.name, Node: n.name}, nil
		}),
		OnInterest: n.mesh.answer,
		OnAck: func(a xds.Ack) {
			if a.Error != "" && !n.tolerant.Load() {
				t.Errorf("%s rejects %s %s: %s", a.Proxy.Node, a.TypeURL, a.Name, a.Error)
			}
			n.accepted(a)
		},
		Log: logr.Discard(),
	})
	n.server = server
	n.xds = grpc.NewServer(xds.GRPCOptions(0)...)
	server.Register(n.xds)
	if n.counter == nil {
		n.counter = counting.NewCounter()
		n.counter.Open = n.told
		n.keep()
	}
	n.counter.Register(n.xds)
	go func(s *grpc.Server) { _ = s.Serve(l) }(n.xds)
	t.Cleanup(n.xds.Stop)
	n.mesh.apply(n.scope(), names.RuntimeLayer, envoy.RuntimeLayer(true, true))
	n.mesh.cache.Ready(n.scope(), xds.TypeListener)
}

// acked waits until the proxy runs the current version of a resource.
func (n *meshNode) acked(typeURL, name string) {
	n.mesh.t.Helper()
	eventually.Passes(n.mesh.t, name+" is acknowledged", func(look require.TestingT) {
		s := n.server.State(n.scope().Key(typeURL, name))
		require.True(look, len(s.Proxies) > 0 && s.Settled(), "%s is not acknowledged", name)
	})
}

// answer makes clusters on demand, as the operator does.
func (m *mesh) answer(i xds.Interest) {
	if !i.Wanted || i.TypeURL != xds.TypeCluster || i.Name == xds.Wildcard || strings.HasPrefix(i.Name, names.Neighbours) {
		return
	}
	at, err := netip.ParseAddrPort(i.Name)
	if err != nil {
		m.t.Errorf("the proxy asks for cluster %q", i.Name)
		return
	}
	m.mu.Lock()
	d, ok := m.destinations[i.Name]
	m.mu.Unlock()
	if !ok {
		d = model.Destination{Address: at, Kind: model.DestinationRefused}
	}
	m.cluster(i.Scope, d)
}

// cluster of a dialled address, with the mark of the node that dials it, as the node's agent passes it on.
func (m *mesh) cluster(scope xds.Scope, d model.Destination) {
	i := slices.IndexFunc(m.nodes, func(n *meshNode) bool { return n.scope() == scope })
	packed, err := anypb.New(upstream.Destination(d))
	if err == nil {
		packed, err = translatenode.Marked(packed, m.nodes[i].mark)
	}
	if err != nil {
		m.t.Errorf("cluster %s: %v", d.Address, err)
		return
	}
	c := &clusterv3.Cluster{}
	require.NoError(m.t, packed.UnmarshalTo(c))
	m.apply(scope, d.Address.String(), c)
}

// destination says what is behind an address, for all nodes.
func (m *mesh) destination(d model.Destination) {
	m.mu.Lock()
	m.destinations[d.Address.String()] = d
	m.mu.Unlock()
	for _, n := range m.nodes {
		if _, known := m.cache.Get(n.scope().Key(xds.TypeCluster, d.Address.String())); known {
			m.cluster(n.scope(), d)
		}
	}
}

// endpoints of a service's port, for all nodes, by their families.
func (m *mesh) endpoints(p model.ServicePort, list ...model.Endpoint) {
	for _, ipv6 := range []bool{false, true} {
		name := names.NodeEndpoints(p.Namespace, p.Service, p.Port, ipv6)
		list := slices.DeleteFunc(slices.Clone(list), func(e model.Endpoint) bool { return e.Address.Addr().Is6() != ipv6 })
		for _, n := range m.nodes {
			m.apply(n.scope(), name, upstream.NodeEndpoints(name, list))
		}
	}
}

// service with a VIP and a port that leads to these pods on a target port.
func (m *mesh) service(name string, vip netip.AddrPort, target uint16, pods ...*pod) {
	port := model.ServicePort{Namespace: "default", Service: name, Port: vip.Port()}
	var endpoints []model.Endpoint
	var identities []string
	for _, p := range pods {
		addr := p.addr
		if vip.Addr().Is6() {
			addr = p.addr6 // as EndpointSlices of an IPv6 Service have it
		}
		e := model.Endpoint{Address: netip.AddrPortFrom(addr, target), MTLS: p.identity != "", Identity: p.identity}
		endpoints = append(endpoints, e)
		if e.MTLS {
			identities = append(identities, p.identity)
		}
	}
	m.endpoints(port, endpoints...)
	m.destination(model.Destination{
		Address: vip, Kind: model.DestinationService, Port: port, IPv6: vip.Addr().Is6(),
		Identities: identities,
	})
}

func (m *mesh) apply(scope xds.Scope, name string, msg proto.Message) {
	r, err := xds.NewResource(name, msg)
	if err != nil {
		m.t.Errorf("resource %s: %v", name, err)
		return
	}
	m.say(scope, r)
}
