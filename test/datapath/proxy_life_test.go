// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/model"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// TestProxyRestarts kills a node's Envoy and starts another one.
func TestProxyRestarts(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	requireHello(t, client, to, "server sees "+client.addr.String())
	for _, n := range m.nodes {
		n.proxy.stop()
		_, err := client.hello(to)
		require.Error(t, err, "without a proxy nothing escapes in plain")
		n.proxy = startProxy(t, n)
		client.waitForListeners()
		server.waitForListeners()
		client.reaches(t, to)
	}
}

// TestListenerOfAPodThatIsGone gives Envoy a listener in a namespace that doesn't exist any more, as happens when a pod
// goes at the wrong moment.
func TestListenerOfAPodThatIsGone(t *testing.T) {
	m := newMesh(t)
	m.nodes[0].tolerant.Store(true)
	for _, l := range translatenode.Listeners(translatenode.Pod{
		UID: "gone", Namespace: "default", Name: "gone", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.99")},
		Identity: "spiffe://cluster.local/ns/default/sa/gone", Netns: filepath.Join(t.TempDir(), "gone"),
	}) {
		m.apply(m.nodes[0].scope(), l.Name, l)
	}
	client := m.nodes[0].newMember("client", false)
	client.greet(8080)
	client.workload(8080)
	m.service("self", addrPort("10.96.0.10:80"), 8080, client)
	requireHello(t, client, "10.96.0.10:80", "client sees "+client.addr.String())
}

// TestKeyExchangeResistsQuantumComputers looks for the hybrid group in the server's answer on the wire.
func TestKeyExchangeResistsQuantumComputers(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	server.greet(8080)
	server.workload(8080)
	wire := m.record()
	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	// ServerHello's key_share extension (51), 1124 bytes: group X25519MLKEM768 (0x11ec), 1120 bytes of key.
	require.True(t, bytes.Contains(wire(), []byte{0x00, 0x33, 0x04, 0x64, 0x11, 0xec, 0x04, 0x60}))
}

// TestOnePortTwice leaves the proxy no other port for its connection to the application than the one that the captured
// connection came from.
func TestOnePortTwice(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[1].newMember("server", false)
	outsider := m.nodes[0].newPod("outsider")
	server.greet(8080)
	netnstest.Sysctl(t, server.ns, "net/ipv4/ip_local_port_range", "40000 40000")
	netnstest.Sysctl(t, outsider.ns, "net/ipv4/ip_local_port_range", "40000 40000")
	requireHello(t, outsider, server.at(8080).String(), "server sees "+outsider.addr.String())
}

// TestIPv6 has pods with addresses of both families on one node. A pod's routes hang on its first address.
func TestIPv6(t *testing.T) {
	m := newMesh(t)
	client, server, outsider := m.nodes[0].newPod("client"), (*pod)(nil), (*pod)(nil)
	client.addIPv6()
	server = m.nodes[0].newPod("server")
	server.addIPv6()
	outsider = m.nodes[0].newPod("outsider")
	outsider.addIPv6()
	server.greet(8080)
	outsider.greet(8080)
	client.join(false)
	server.join(false)
	vip := addrPort("[fd00:96::9]:80")
	m.service("web", vip, 8080, server)

	t.Run("by VIP", func(t *testing.T) {
		requireHello(t, client, vip.String(), "server sees "+client.addr6.String())
	})
	t.Run("by pod address", func(t *testing.T) {
		to := netip.AddrPortFrom(server.addr6, 8080)
		m.destination(model.Destination{Address: to, Kind: model.DestinationWorkload, Identities: []string{server.identity}})
		requireHello(t, client, to.String(), "server sees "+client.addr6.String())
	})
	t.Run("each family stays what it is, from the client to the server", func(t *testing.T) {
		both := model.ServicePort{Namespace: "default", Service: "both", Port: 80}
		vip, vip6 := addrPort("10.96.0.20:80"), addrPort("[fd00:96::20]:80")
		m.endpoints(both,
			model.Endpoint{Address: server.at(8080), MTLS: true, Identity: server.identity},
			model.Endpoint{Address: netip.AddrPortFrom(server.addr6, 8080), MTLS: true, Identity: server.identity})
		for _, v := range []netip.AddrPort{vip, vip6} {
			m.destination(model.Destination{
				Address: v, Kind: model.DestinationService, Port: both, IPv6: v.Addr().Is6(),
				Identities: []string{server.identity},
			})
		}
		for range 20 { // more than chance
			requireHello(t, client, vip.String(), "server sees "+client.addr.String())
			requireHello(t, client, vip6.String(), "server sees "+client.addr6.String())
		}
	})
	t.Run("plaintext out", func(t *testing.T) {
		to := netip.AddrPortFrom(outsider.addr6, 8080)
		m.destination(model.Destination{Address: to, Kind: model.DestinationPassthrough})
		requireHello(t, client, to.String(), "outsider sees "+client.addr6.String())
	})
	t.Run("plaintext in", func(t *testing.T) {
		requireHello(t, outsider, netip.AddrPortFrom(server.addr6, 8080).String(), "server sees "+outsider.addr6.String())
		requireHello(t, outsider, server.at(8080).String(), "server sees "+outsider.addr.String())
	})
}

// TestStrictEndsConnectionsFromBefore captures the server of connections that are open, in strict mode.
func TestStrictEndsConnectionsFromBefore(t *testing.T) {
	m := newMesh(t)
	client, server := m.nodes[0].newPod("client"), m.nodes[1].newPod("server")
	server.greet(8080)
	client.greet(8081)
	in, out := client.session(server.at(8080).String()), server.session(client.at(8081).String())
	server.join(true)
	in.alive()
	n, err := capture.EndPlaintext(server.ns, server.node.mark, nil, everywhere)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	in.ends()
	out.alive()
}

// TestEnrolmentLeavesConnectionsAlone captures both ends of an open connection.
func TestEnrolmentLeavesConnectionsAlone(t *testing.T) {
	m := newMesh(t)
	client, server := m.nodes[0].newPod("client"), m.nodes[1].newPod("server")
	server.greet(8080)
	open := client.session(server.at(8080).String())
	client.join(true)
	open.alive()
	server.join(true)
	open.alive()
	server.workload(8080)
	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	open.alive()
}
