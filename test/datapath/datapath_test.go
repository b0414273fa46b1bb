// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// at is the pod's own address with a port.
func (p *pod) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.addr, port) }

// workload makes the pod's own address known as one that takes mTLS.
func (p *pod) workload(port uint16) {
	p.mesh.destination(model.Destination{Address: p.at(port), Kind: model.DestinationWorkload, Identities: []string{
		p.identity,
	}})
}

func TestBetweenMembers(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	neighbour := m.nodes[0].newMember("neighbour", false)
	server := m.nodes[1].newMember("server", true)
	for _, p := range []*pod{client, neighbour, server} {
		p.greet(8080)
		p.workload(8080)
	}
	vip := addrPort("10.96.0.9:80")
	m.service("web", vip, 8080, server)

	t.Run("by VIP, to another node and another port", func(t *testing.T) {
		wire := m.record()
		requireHello(t, client, vip.String(), "server sees "+client.addr.String())
		require.NotContains(t, string(wire()), secret, "nobody can read it")
		m.nodes[0].proxy.logged(map[string]any{
			"direction": "outbound", "dialled": vip.String(), "pod": "default/client",
			"source": client.identity, "destination": server.identity, "to": server.at(names.PortMTLS).String(),
		})
		line := m.nodes[1].proxy.logged(map[string]any{
			"direction": "inbound-mtls", "dialled": server.at(8080).String(), "pod": "default/server",
			"source": client.identity, "destination": server.identity, "to": server.at(8080).String(),
		})
		require.NotZero(t, line["sent"])
		require.NotZero(t, line["received"])
	})
	t.Run("with the capabilities of the proxy's container", func(t *testing.T) {
		for _, n := range m.nodes {
			require.Equal(t, fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_SYS_ADMIN), n.proxy.capabilities())
		}
	})
	t.Run("by pod address", func(t *testing.T) {
		requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	})
	t.Run("on one node", func(t *testing.T) {
		requireHello(t, client, neighbour.at(8080).String(), "neighbour sees "+client.addr.String())
		m.nodes[0].proxy.logged(map[string]any{
			"direction": "inbound-mtls", "source": client.identity, "destination": neighbour.identity,
		})
	})
	t.Run("to oneself by VIP", func(t *testing.T) {
		self := addrPort("10.96.0.10:80")
		m.service("self", self, 8080, client)
		requireHello(t, client, self.String(), "client sees "+client.addr.String())
		m.nodes[0].proxy.logged(map[string]any{
			"direction": "inbound-mtls", "source": client.identity, "destination": client.identity,
		})
	})
	t.Run("to oneself by address, past the proxy", func(t *testing.T) {
		requireHello(t, client, client.at(8080).String(), "client sees "+client.addr.String())
		requireHello(t, client, "127.0.0.1:8080", "client sees 127.0.0.1")
	})
}

func TestDestinationsWithoutMTLS(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	plain := m.nodes[1].newPod("plain")
	server.greet(8080)
	plain.greet(8080)
	vip := addrPort("10.96.0.9:80")

	t.Run("a service of them", func(t *testing.T) {
		m.service("plain", vip, 8080, plain)
		requireHello(t, client, vip.String(), "plain sees "+client.addr.String())
		m.nodes[0].proxy.logged(map[string]any{"direction": "outbound", "dialled": vip.String(), "source": client.identity})
	})
	t.Run("their address", func(t *testing.T) {
		m.destination(model.Destination{Address: plain.at(8080), Kind: model.DestinationPassthrough})
		requireHello(t, client, plain.at(8080).String(), "plain sees "+client.addr.String())
	})
	t.Run("beside others that take mTLS", func(t *testing.T) {
		mixed := addrPort("10.96.0.11:80")
		m.service("mixed", mixed, 8080, plain, server)
		seen := map[string]bool{}
		for i := 0; len(seen) < 2; i++ {
			require.Less(t, i, 200, "all connections went to %v", seen)
			who, err := client.hello(mixed.String())
			require.NoError(t, err)
			seen[who] = true
		}
		require.Equal(t, map[string]bool{"plain sees " + client.addr.String(): true, "server sees " +
			client.addr.String(): true}, seen)
	})
	t.Run("outside the captured ranges, past the proxy", func(t *testing.T) {
		outside := m.nodes[1]
		l := (&pod{mesh: m, node: outside, name: "outside", ns: outside.ns})
		l.greet(9090)
		requireHello(t, client, netip.AddrPortFrom(outside.addr, 9090).String(), "outside sees "+client.addr.String())
		require.Nil(t, m.nodes[0].proxy.line(map[string]any{"dialled": netip.AddrPortFrom(outside.addr, 9090).String()}))
	})
	t.Run("nowhere", func(t *testing.T) {
		requireRefused(t, client, "10.96.0.99:80")
		m.nodes[0].proxy.logged(map[string]any{"direction": "outbound", "dialled": "10.96.0.99:80"})
	})
	t.Run("where nobody listens", func(t *testing.T) {
		server.workload(8099)
		requireRefused(t, client, server.at(8099).String())
		m.destination(model.Destination{Address: plain.at(8099), Kind: model.DestinationPassthrough})
		requireRefused(t, client, plain.at(8099).String())
	})
}

func TestPlaintextInbound(t *testing.T) {
	m := newMesh(t)
	permissive := m.nodes[0].newMember("permissive", false)
	strict := m.nodes[0].newMember("strict", true)
	outsider := m.nodes[1].newPod("outsider")
	permissive.greet(8080)
	strict.greet(8080)

	t.Run("permissive takes it and shows the client's address", func(t *testing.T) {
		requireHello(t, outsider, permissive.at(8080).String(), "permissive sees "+outsider.addr.String())
		m.nodes[0].proxy.logged(map[string]any{
			"direction": "inbound-plaintext", "pod": "default/permissive",
			"destination": permissive.identity,
		})
	})
	t.Run("strict refuses it", func(t *testing.T) {
		requireRefused(t, outsider, strict.at(8080).String())
		m.nodes[0].proxy.logged(map[string]any{"direction": "inbound-plaintext", "pod": "default/strict"})
	})
	t.Run("strict lets probes pass, from the node only", func(t *testing.T) {
		probe := []netip.AddrPort{strict.at(8080)}
		require.NoError(t, capture.ApplyHost(m.nodes[0].ns, capture.Host{Probes: probe}))
		require.NoError(t, capture.UpdateSets(strict.ns, capture.Pod{Proxy: strict.node.mark, Ranges: ranges, Probes: probe}))
		have, err := hello(m.nodes[0].ns.Do, strict.at(8080).String())
		require.NoError(t, err)
		require.Equal(t, "strict sees "+names.ProbeSourceAddress, have)
		strict.greet(8081)
		_, err = hello(m.nodes[0].ns.Do, strict.at(8081).String())
		require.Error(t, err, "a port that is no probe's")
		_, err = hello(m.nodes[1].ns.Do, strict.at(8080).String())
		require.Error(t, err, "from the other node")
		requireRefused(t, outsider, strict.at(8080).String())
		require.NoError(t, capture.RemoveHost(m.nodes[0].ns))
		_, err = hello(m.nodes[0].ns.Do, strict.at(8080).String())
		require.Error(t, err, "without the rule")
	})
	t.Run("strict and permissive change without a restart", func(t *testing.T) {
		strict.configure(false)
		outsider.reaches(t, strict.at(8080).String())
		strict.workload(8080)
		permissive.reaches(t, strict.at(8080).String())
		plaintext, mtls := outsider.session(strict.at(8080).String()), permissive.session(strict.at(8080).String())
		strict.configure(true)
		plaintext.ends()
		// The last of the application's ends of what has ended may still be open.
		eventually.Passes(t, "all else passes the proxy", func(t require.TestingT) {
			n, err := capture.EndPlaintext(strict.ns, strict.node.mark, nil, everywhere)
			require.NoError(t, err)
			require.Zero(t, n)
		})
		mtls.alive()
		outsider.reachesNoMore(t, strict.at(8080).String())
	})
	t.Run("nobody dials the capture ports", func(t *testing.T) {
		for _, port := range []uint16{names.PortOutbound, names.PortInbound} {
			requireRefused(t, outsider, permissive.at(port).String())
			requireRefused(t, permissive, permissive.at(port).String())
			requireRefused(t, permissive, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
			strict.workload(port)
			requireRefused(t, permissive, strict.at(port).String())
		}
	})
	t.Run("released, it is a plain pod again", func(t *testing.T) {
		require.NoError(t, capture.Remove(strict.ns))
		requireHello(t, outsider, strict.at(8080).String(), "strict sees "+outsider.addr.String())
	})
}

// TestAbsentApplication: a member whose application is not there is noticed at once.
func TestAbsentApplication(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.workload(8099)
	start := time.Now()
	requireRefused(t, client, server.at(8099).String())
	require.Less(t, time.Since(start), 4*time.Second)
	m.nodes[1].proxy.logged(map[string]any{
		"direction": "inbound-mtls", "dialled": server.at(8099).String(),
		"flags": "UF,URX",
	})
}

func TestIdentities(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	vip := addrPort("10.96.0.9:80")
	port := model.ServicePort{Namespace: "default", Service: "web", Port: 80}
	m.service("web", vip, 8080, server)
	other := names.SPIFFEID(trustDomain, "default", "other")

	t.Run("a server with another identity is refused", func(t *testing.T) {
		m.service("web", vip, 8080, server)
		m.destination(model.Destination{Address: vip, Kind: model.DestinationService, Port: port, Identities: []string{
			other,
		}})
		requireRefused(t, client, vip.String())
		m.nodes[0].proxy.logged(map[string]any{"direction": "outbound", "dialled": vip.String()})
		m.destination(model.Destination{Address: vip, Kind: model.DestinationService, Port: port, Identities: []string{
			other, server.identity,
		}})
		client.reaches(t, vip.String())
	})
	t.Run("of many, the namespace counts", func(t *testing.T) {
		many := func(namespace string) (out []string) {
			for n := range 20 {
				out = append(out, names.SPIFFEID(trustDomain, namespace, fmt.Sprint("account-", n)))
			}
			return out
		}
		m.destination(model.Destination{Address: vip, Kind: model.DestinationService, Port: port, Identities: many("defaul")})
		m.nodes[0].acked(xds.TypeCluster, vip.String())
		requireRefused(t, client, vip.String())
		m.destination(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: port,
			Identities: many("default"),
		})
		client.reaches(t, vip.String())
	})
	t.Run("a server that may be nobody is refused", func(t *testing.T) {
		nobody := server.at(8080)
		m.destination(model.Destination{Address: nobody, Kind: model.DestinationWorkload})
		requireRefused(t, client, nobody.String())
	})
	t.Run("a client of another trust domain is refused", func(t *testing.T) {
		stranger := m.nodes[0].newPod("stranger")
		stranger.identity = "spiffe://elsewhere/ns/default/sa/stranger"
		m.issue(stranger.identity)
		stranger.configure(false)
		stranger.waitForListeners()
		require.NoError(t, capture.Apply(stranger.ns, capture.Pod{Proxy: stranger.node.mark, Ranges: ranges}))
		server.workload(8080)
		client.reaches(t, server.at(8080).String())
		requireRefused(t, stranger, server.at(8080).String())
	})
}
