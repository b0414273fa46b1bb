// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// passes is how often a connection from a pod passes the proxy of its node: once, if it leads to a neighbour.
func (p *pod) passes(t *testing.T, to *pod, address string) int {
	t.Helper()
	before := p.node.proxy.neighbours(t)
	have, err := p.hello(address)
	require.NoError(t, err)
	family := p.addr
	if netip.MustParseAddrPort(address).Addr().Is6() {
		family = p.addr6
	}
	require.Equal(t, fmt.Sprintf("%s sees %s", to.name, family), have)
	if p.node.proxy.neighbours(t) == before {
		return 2
	}
	return 1
}

// neighbours is how many connections the proxy has made between neighbours.
func (p *proxy) neighbours(t *testing.T) int {
	t.Helper()
	stats, err := p.ask("/stats?filter=^cluster.neighbours.upstream_cx_total")
	require.NoError(t, err)
	_, count, ok := strings.Cut(strings.TrimSpace(stats), ": ")
	if !ok {
		return 0 // none has been made
	}
	n, err := strconv.Atoi(count)
	require.NoError(t, err)
	return n
}

// passesOnce waits until all of the proxy's threads know that the way leads to a neighbour: as many connections pass it
// once as all threads together get in any case.
func (w way) passesOnce(t *testing.T) {
	t.Helper()
	w.isNear(t)
	once := 0
	eventually.True(t, w.address.String()+" leads through the proxy once", func() bool {
		if once++; w.from.passes(t, w.to, w.address.String()) > 1 {
			once = 0
		}
		return once > 10
	})
}

func TestNeighbours(t *testing.T) {
	m := newNeighbourMesh(t)
	dual := func(name string) *pod {
		p := m.nodes[0].newPod(name)
		p.addIPv6()
		p.join(true)
		p.greet(8080)
		return p
	}
	client, server, other := dual("client"), dual("server"), dual("other")
	far := m.nodes[1].newMember("far", true)
	far.greet(8080)
	near := func(to *pod, address netip.AddrPort) way { return way{client, to, address} }

	t.Run("by address, strict as it is", func(t *testing.T) {
		server.workload(8080)
		near(server, server.at(8080)).passesOnce(t)
		line := m.nodes[0].proxy.logged(map[string]any{"direction": "outbound", "neighbour": server.identity})
		require.Equal(t, client.identity, line["source"])
		require.Equal(t, server.at(8080).String(), line["to"])
		require.Nil(t, line["destination"], "nobody has proved it by a certificate")
	})
	t.Run("by IPv6", func(t *testing.T) {
		vip := addrPort("[fd00:96::9]:80")
		m.service("six", vip, 8080, server)
		near(server, vip).passesOnce(t)
	})
	t.Run("several of a Service", func(t *testing.T) {
		vip := addrPort("10.96.0.20:80")
		m.service("both", vip, 8080, server, other)
		near(nil, vip).isNear(t)
		seen := map[string]int{}
		for range 200 {
			have, err := client.hello(vip.String())
			require.NoError(t, err)
			seen[have]++
		}
		require.Len(t, seen, 2)
		for who, n := range seen {
			require.Greater(t, n, 50, who)
		}
	})
	t.Run("oneself is none", func(t *testing.T) {
		vip := addrPort("10.96.0.21:80")
		m.service("self", vip, 8080, client)
		way{server, client, vip}.passesOnce(t)
		require.Equal(t, 2, client.passes(t, client, vip.String()))
	})
	t.Run("nobody counts them as plain text", func(t *testing.T) {
		require.NotZero(t, m.nodes[0].proxy.neighbours(t))
		stats, err := m.nodes[0].proxy.ask("/stats?filter=plaintext_total")
		require.NoError(t, err)
		require.NotContains(t, stats, "plaintext_total")
	})
	for name, what := range map[string]struct {
		to *pod
		as func(vip netip.AddrPort)
	}{
		"a Service that has pods elsewhere, too": {nil, func(vip netip.AddrPort) {
			m.service("mixed", vip, 8080, server, far)
		}},
		"a pod of another node": {far, func(vip netip.AddrPort) { m.service("far", vip, 8080, far) }},
		"a guarded pod": {other, func(vip netip.AddrPort) {
			m.service("guarded", vip, 8080, other)
			other.enforced(guardOf(denies("a", anybody(7070))))
		}},
		"a pod where a policy is tried": {other, func(vip netip.AddrPort) {
			m.service("tried", vip, 8080, other)
			other.enforced(guardOf(dryRun(denies("a", anybody(8080)))))
		}},
		"a pod that is let go": {server, func(vip netip.AddrPort) {
			m.service("left", vip, 8080, server)
			m.nodes[0].near.Load().Released(t.Context(), server.spec(true).UID)
			t.Cleanup(server.captured)
		}},
		"a caller that isn't captured yet": {server, func(vip netip.AddrPort) {
			m.service("early", vip, 8080, server)
			m.nodes[0].near.Load().Released(t.Context(), client.spec(true).UID)
			t.Cleanup(client.captured)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			vip := netip.AddrPortFrom(netip.MustParseAddr("10.96.0.30"), uint16(1000+len(name)))
			what.as(vip)
			_, err := client.hello(vip.String())
			require.NoError(t, err)
			m.settled()
			if what.to == nil {
				require.NotContains(t, m.nodes[0].near.Load().Ways(), vip.String())
				return
			}
			require.Equal(t, 2, client.passes(t, what.to, vip.String()))
		})
	}
	t.Run("another identity than the Service's", func(t *testing.T) {
		vip := addrPort("10.96.0.31:80")
		port := model.ServicePort{Namespace: "default", Service: "strange", Port: 80}
		m.endpoints(port, model.Endpoint{Address: server.at(8080), MTLS: true, Identity: other.identity})
		m.destination(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: port, Identities: []string{other.identity},
		})
		requireRefused(t, client, vip.String())
		m.settled()
		requireRefused(t, client, vip.String())
	})
}

// TestNeighboursPart: a pod leaves the mesh while another of its node has a connection to it. That lives until the last
// rules are gone, and ends then, though it is none of the pod's listeners.
func TestNeighboursPart(t *testing.T) {
	m := newNeighbourMesh(t)
	n := m.nodes[0]
	client, server := n.newMember("client", false), n.newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	way{client, server, server.at(8080)}.passesOnce(t)
	open := client.session(server.at(8080).String())
	k, err := kernel.New(n.mark, nil)
	require.NoError(t, err)

	n.near.Load().Released(t.Context(), server.spec(false).UID)
	require.NoError(t, k.Drain(server.ns.Path()))
	open.alive()
	require.NoError(t, k.Remove(server.ns.Path()))
	open.ends()
}

// settled waits until the nodes' proxies have been told all that there is to say about neighbours.
func (m *mesh) settled() {
	for _, n := range m.nodes {
		n.near.Load().Look()
		require.NoError(m.t, n.WaitSettled(m.t.Context(), xds.ID{TypeURL: xds.TypeExtension, Name: names.Neighbours}))
	}
}

// TestNobodySlipsByANeighboursGuard: a guard comes and goes while pods connect as fast as they can. When it is
// acknowledged, whom it refuses gets in no more, and whoever came in while the proxy's threads heard of it has to go.
func TestNobodySlipsByANeighboursGuard(t *testing.T) {
	m := newNeighbourMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	server := m.nodes[0].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	at := server.at(8080).String()
	w := way{bob, server, server.at(8080)}
	const rounds, atOnce = 10, 4
	for round := range rounds {
		w.passesOnce(t)
		stays := alice.session(at)
		var open [atOnce][]*session
		var stop atomic.Bool
		var all sync.WaitGroup
		for n := range open {
			open[n] = append(open[n], bob.session(at))
			all.Go(func() {
				for !stop.Load() {
					c, err := bob.dial(at)
					if err != nil {
						continue
					}
					s := &session{t, c, bufio.NewReader(c)}
					if _, err := s.r.ReadString('\n'); err != nil {
						_ = c.Close()
						continue
					}
					open[n] = append(open[n], s)
				}
			})
		}
		server.enforced(guardOf(denies("a", from(bob))))
		for range 20 {
			_, err := alice.hello(at)
			require.NoError(t, err)
		}
		stop.Store(true)
		all.Wait()
		require.Equal(t, 2, alice.passes(t, server, at))
		bound := time.Now().Add(soon)
		for _, s := range slices.Concat(open[:]...) {
			require.NoError(t, s.endsBefore(bound), "round %d", round)
			_ = s.c.Close()
		}
		t.Logf("round %d: all of %d have ended", round, len(slices.Concat(open[:]...)))
		requireRefused(t, bob, at)
		stays.alive()
		require.NoError(t, stays.c.Close())
		server.enforced(guardOf())
	}
}

// TestWhoseAddressItWas: an address that another pod has now leads to that pod and to nobody else, even if its node's
// agent doesn't know yet.
func TestWhoseAddressItWas(t *testing.T) {
	m := newNeighbourMesh(t)
	client, before := m.nodes[0].newMember("client", false), m.nodes[0].newMember("before", false)
	before.greet(8080)
	before.workload(8080)
	at := before.at(8080).String()
	way{client, before, before.at(8080)}.passesOnce(t)

	// The pod goes, with its network namespace, and nobody says so. Another one has its address.
	before.goes()
	after := m.nodes[0].newPodAt("after", before.addr)
	after.greet(8080)
	_, err := client.hello(at)
	require.Error(t, err, "the address was another pod's")
	after.join(false)
	_, err = client.hello(at)
	require.Error(t, err, "the address was another pod's")

	// When the agent knows, the one that has the address isn't who the caller asked for; and then it is.
	m.nodes[0].near.Load().Forgotten(t.Context(), before.spec(false).UID)
	requireRefused(t, client, at)
	after.workload(8080)
	way{client, after, after.at(8080)}.passesOnce(t)
}

// TestAgentsOfNeighboursStartAnew: while a node's agent is away, all goes on. When it comes back it knows nothing, and
// nothing leads to neighbours until it does.
func TestAgentsOfNeighboursStartAnew(t *testing.T) {
	m := newNeighbourMesh(t)
	n := m.nodes[0]
	client, server := n.newMember("client", false), n.newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	at := server.at(8080).String()
	w := way{client, server, server.at(8080)}
	w.passesOnce(t)
	open := client.session(at)
	n.xds.Stop()
	require.Equal(t, 1, client.passes(t, server, at))
	open.alive()

	n.near.Store(nil)
	n.serve()
	n.keepNeighbours()
	eventually.True(t, "the proxy knows of no neighbours", func() bool { return client.passes(t, server, at) == 2 })
	open.alive()
	client.captured()
	server.captured()
	w.passesOnce(t)
	open.alive()

	n.proxy.stop()
	n.proxy = startProxy(t, n)
	client.reaches(t, at)
	w.passesOnce(t)
}
