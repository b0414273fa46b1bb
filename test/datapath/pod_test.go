// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// patience bounds what a socket waits for; a passing test is far below.
const patience = 15 * time.Second

// newPod makes a pod that is outside the mesh: its identity is empty.
func (n *meshNode) newPod(name string) *pod {
	b := n.podRange().Addr().As4()
	b[3] = byte(n.pods + 2)
	return n.newPodAt(name, netip.AddrFrom4(b))
}

func (n *meshNode) newPodAt(name string, addr netip.Addr) *pod {
	t := n.mesh.t
	t.Helper()
	n.pods++
	p := &pod{
		mesh: n.mesh, node: n, name: name, namespace: "default", ns: netnstest.New(t, name), addr: addr,
		veth: fmt.Sprintf("veth%d", n.pods),
	}
	veth := p.veth
	netnstest.Link(t, p.ns, "eth0", n.ns, veth)
	netnstest.Address(t, p.ns, "eth0", netip.PrefixFrom(p.addr, 32))
	netnstest.Address(t, n.ns, veth, netip.PrefixFrom(gateway, 32))
	netnstest.Route(t, p.ns, "eth0", netip.PrefixFrom(gateway, 32), netip.Addr{})
	netnstest.Route(t, p.ns, "eth0", netip.MustParsePrefix("0.0.0.0/0"), gateway)
	netnstest.Route(t, n.ns, veth, netip.PrefixFrom(p.addr, 32), netip.Addr{})
	return p
}

// addIPv6 gives a pod that is outside the mesh an IPv6 address as well.
func (p *pod) addIPv6() {
	t, n := p.mesh.t, p.node
	veth := fmt.Sprintf("veth%d", n.pods)
	p.addr6 = netip.MustParseAddr(fmt.Sprintf("fd00:244:%d::%d", n.addr.As4()[3], n.pods+1))
	netnstest.Sysctl(t, n.ns, "net/ipv6/conf/all/forwarding", "1")
	netnstest.Address(t, p.ns, "eth0", netip.PrefixFrom(p.addr6, 128))
	netnstest.Address(t, n.ns, veth, netip.PrefixFrom(gateway6, 64))
	netnstest.Route(t, p.ns, "eth0", netip.PrefixFrom(gateway6, 128), netip.Addr{})
	netnstest.Route(t, p.ns, "eth0", netip.MustParsePrefix("::/0"), gateway6)
	netnstest.Route(t, n.ns, veth, netip.PrefixFrom(p.addr6, 128), netip.Addr{})
}

func (p *pod) others() []netip.Addr {
	if p.addr6.IsValid() {
		return []netip.Addr{p.addr6}
	}
	return nil
}

// goes as a pod does that is deleted: its address leads nowhere any more, nor does the path of its network namespace.
func (p *pod) goes() {
	require.NoError(p.mesh.t, p.node.ns.Do(func() error {
		l, err := netlink.LinkByName(p.veth)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	}))
	require.NoError(p.mesh.t, unix.Unmount(p.ns.Path(), unix.MNT_DETACH))
}

// newMember makes a captured pod with the identity of a service account of its name.
func (n *meshNode) newMember(name string, strict bool) *pod {
	p := n.newPod(name)
	p.join(strict)
	return p
}

// join captures the pod.
func (p *pod) join(strict bool) {
	t := p.mesh.t
	t.Helper()
	p.identity = names.SPIFFEID(trustDomain, p.namespace, p.name)
	p.mesh.issue(p.identity)
	p.mesh.destination(model.Destination{
		Address: netip.AddrPortFrom(p.addr, 0), Kind: model.DestinationWorkload,
		Identities: []string{p.identity},
	})
	p.mesh.mu.Lock()
	p.mesh.members[p.namespace+"/"+p.name] = p
	p.mesh.mu.Unlock()
	p.configure(strict)
	p.guarded(model.PodGuard{})
	p.waitForListeners()
	p.capture(uint32(v1alpha1.DefaultConnectionsPerPeer))
	p.captured()
}

// guarded is what the operator says of a pod.
func (p *pod) guarded(g model.PodGuard) {
	name := names.PodAuthorization(p.namespace, p.name)
	p.mesh.apply(p.node.scope(), name, envoy.Extension(name, authorization.Node(g)))
}

// capture the pod, to which one address may have so many connections open.
func (p *pod) capture(peers uint32) {
	t := p.mesh.t
	t.Helper()
	require.NoError(t, capture.Apply(p.ns, capture.Pod{Proxy: p.node.mark, Ranges: ranges, Peers: peers}))
}

// configure gives the pod's listeners to its node.
func (p *pod) configure(strict bool, except ...uint16) {
	for _, l := range p.listeners(strict, except...) {
		p.mesh.apply(p.node.scope(), l.Name, l)
	}
}

// listeners of the pod, with another mode at some ports.
func (p *pod) listeners(strict bool, except ...uint16) []*listenerv3.Listener {
	out := translatenode.Listeners(p.spec(strict, except...))
	if p.mesh.retell > 0 {
		p.retell(out[len(out)-1])
	}
	return out
}

// spec is the pod as its node's agent has it.
func (p *pod) spec(strict bool, except ...uint16) translatenode.Pod {
	return translatenode.Pod{
		UID: "uid-" + p.name, Namespace: p.namespace, Name: p.name, IPs: append([]netip.Addr{p.addr}, p.others()...),
		Identity: p.identity, Netns: p.ns.Path(), Strict: strict, Except: except, Neighbours: p.mesh.neighbours,
	}
}

// retell has the proxy tell of what is open more often than it does.
func (p *pod) retell(mtls *listenerv3.Listener) {
	for _, c := range mtls.GetFilterChains() {
		last, proxy := c.Filters[len(c.Filters)-1], &tcpproxyv3.TcpProxy{}
		require.NoError(p.mesh.t, last.GetTypedConfig().UnmarshalTo(proxy))
		proxy.AccessLogOptions.AccessLogFlushInterval = envoy.Duration(p.mesh.retell)
		last.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(proxy)}
	}
}

func (p *pod) waitForListeners() {
	eventually.Passes(p.mesh.t, "the listeners of "+p.name, func(look require.TestingT) {
		have, err := p.ns.Listening(names.PortOutbound, names.PortInbound, names.PortMTLS)
		require.NoError(look, err)
		require.Equal(look, map[uint16]bool{names.PortOutbound: true, names.PortInbound: true, names.PortMTLS: true}, have)
	})
}

// listen on a port in the pod.
func (p *pod) listen(port uint16) *net.TCPListener {
	t := p.mesh.t
	t.Helper()
	var l net.Listener
	require.NoError(t, p.ns.Do(func() error {
		var err error
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)) // of both families
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// greet serves a port: it says who it is and whom it sees, first, and then echoes.
func (p *pod) greet(port uint16) {
	netnstest.Serve(p.mesh.t, p.ns, fmt.Sprintf(":%d", port), func(c net.Conn) { // of both families
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if _, err := fmt.Fprintf(c, "%s sees %s\n", p.name, host); err == nil {
			_, _ = io.Copy(c, c)
		}
	})
}

// dial from the pod.
func (p *pod) dial(to string) (*net.TCPConn, error) { return dialIn(p.ns.Do, to) }

func dialIn(do func(func() error) error, to string) (*net.TCPConn, error) {
	var c net.Conn
	err := do(func() error {
		var err error
		c, err = net.DialTimeout("tcp", to, patience)
		return err
	})
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), nil
}

// hello reads the greeting at an address and checks that the echo works.
func (p *pod) hello(to string) (string, error) { return hello(p.ns.Do, to) }

func hello(do func(func() error) error, to string) (string, error) {
	c, err := dialIn(do, to)
	if err != nil {
		return "", err
	}
	return helloOver(c)
}

func helloOver(c net.Conn) (string, error) {
	defer c.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, secret+"\n"); err != nil {
		return "", err
	}
	back, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	if back != secret+"\n" {
		return "", fmt.Errorf("echo is %q", back)
	}
	return line[:len(line)-1], nil
}

// secret is what a packet capture must not find.
const secret = "the-secret-that-no-one-may-read"

func requireHello(t *testing.T, p *pod, to, want string) {
	t.Helper()
	have, err := p.hello(to)
	require.NoError(t, err, "%s dials %s", p.name, to)
	require.Equal(t, want, have, "%s dials %s", p.name, to)
}

func requireRefused(t *testing.T, p *pod, to string) {
	t.Helper()
	have, err := p.hello(to)
	require.Error(t, err, "%s dials %s and hears %q", p.name, to, have)
	var timeout net.Error
	var te net.Error
	if errors.As(err, &te) {
		timeout = te
		require.False(t, timeout.Timeout(), "%s dials %s: refused only by a time-out", p.name, to)
	}
}

// reaches waits until the pod hears who serves an address.
func (p *pod) reaches(t *testing.T, to string) {
	t.Helper()
	eventually.NoError(t, p.name+" reaches "+to, func() error { _, err := p.hello(to); return err })
}

// reachesNoMore waits until the pod hears nobody at an address.
func (p *pod) reachesNoMore(t *testing.T, to string) {
	t.Helper()
	eventually.True(t, p.name+" is refused by "+to, func() bool { _, err := p.hello(to); return err != nil })
}
