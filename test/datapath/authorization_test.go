// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func allows(name string, rules ...model.AccessRule) model.AccessPolicy {
	for n := range rules {
		rules[n].Index = n
	}
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "default", Name: name}, Rules: rules}
}

func denies(name string, rules ...model.AccessRule) model.AccessPolicy {
	p := allows(name, rules...)
	p.Deny = true
	return p
}

func dryRun(p model.AccessPolicy) model.AccessPolicy {
	p.DryRun = true
	return p
}

// from pods, at ports; none: at all.
func from(p *pod, ports ...uint16) model.AccessRule {
	return model.AccessRule{Sources: []model.AccessSource{{Identity: p.identity}}, Ports: ports}
}

func anybody(ports ...uint16) model.AccessRule { return model.AccessRule{Ports: ports} }

func guardOf(policies ...model.AccessPolicy) model.PodGuard {
	return model.PodGuard{Guard: model.Guard{Network: policies}}
}

// enforced gives the pod a guard, and waits until its proxy has it.
func (p *pod) enforced(g model.PodGuard) {
	p.mesh.t.Helper()
	p.guarded(g)
	p.node.acked(xds.TypeExtension, names.PodAuthorization(p.namespace, p.name))
}

// TestGuards: the pod's own node proxy lets in whom the policies let in, whatever way they come: from another node and
// from the same, in plain text, by either family.
func TestGuards(t *testing.T) {
	m := newMesh(t)
	dual := func(n *meshNode, name string) *pod {
		p := n.newPod(name)
		p.addIPv6()
		return p
	}
	outsider := dual(m.nodes[0], "outsider")
	neighbour := dual(m.nodes[1], "neighbour") // IPv6 has no way between the nodes
	alice, bob, server := dual(m.nodes[0], "alice"), dual(m.nodes[1], "bob"), dual(m.nodes[1], "server")
	for _, p := range []*pod{alice, bob, server} {
		p.join(false)
	}
	ports := []uint16{8080, 9090}
	for _, port := range ports {
		server.greet(port)
		server.workload(port)
		m.destination(model.Destination{
			Address: netip.AddrPortFrom(server.addr6, port), Kind: model.DestinationWorkload,
			Identities: []string{server.identity},
		})
	}
	nobody, everybody := "", "alice8080 alice9090 bob8080 bob9090 outsider8080 outsider9090"
	portClosed := "alice8080 alice9090 bob9090 outsider9090"
	carol := model.AccessRule{Sources: []model.AccessSource{{Identity: names.SPIFFEID(trustDomain, "default", "carol")}}}
	namespace := model.AccessRule{Sources: []model.AccessSource{
		{Identity: names.SPIFFENamespace(alice.identity), Prefix: true},
	}}
	for name, c := range map[string]struct {
		guard model.PodGuard
		want  string
	}{
		"no policy":            {guardOf(), everybody},
		"an account":           {guardOf(allows("a", from(alice))), "alice8080 alice9090"},
		"an account at a port": {guardOf(allows("a", from(alice, 8080))), "alice8080"},
		"a namespace":          {guardOf(allows("a", namespace)), "alice8080 alice9090 bob8080 bob9090"},
		"a policy for a port":  {guardOf(atPort(8080, allows("a", from(alice, 8080)))), portClosed},
		"policies add up": {
			guardOf(allows("a", from(alice)), allows("b", from(bob, 9090))), "alice8080 alice9090 bob9090",
		},
		"anybody at a port":         {guardOf(allows("a", from(alice), anybody(9090))), portClosed},
		"deny comes first":          {guardOf(allows("a", namespace), denies("b", from(bob))), "alice8080 alice9090"},
		"deny a port":               {guardOf(denies("a", anybody(9090))), "alice8080 bob8080 outsider8080"},
		"deny an account":           {guardOf(denies("a", from(alice))), "bob8080 bob9090 outsider8080 outsider9090"},
		"deny everybody":            {guardOf(denies("a", anybody())), nobody},
		"empty":                     {guardOf(allows("a")), nobody},
		"default deny":              {model.PodGuard{Guard: model.Guard{DefaultDeny: true}}, nobody},
		"somebody else":             {guardOf(allows("a", carol)), nobody},
		"an ALLOW that is tried":    {guardOf(dryRun(allows("a", from(alice)))), everybody},
		"a DENY that is tried":      {guardOf(dryRun(denies("a", anybody()))), everybody},
		"a port of a waypoint only": {model.PodGuard{Only: []uint16{8080}}, "alice9090 bob9090 outsider9090"},
	} {
		t.Run(name, func(t *testing.T) {
			server.enforced(c.guard)
			for who, caller := range map[string]*pod{"alice": alice, "bob": bob, "outsider": outsider} {
				for _, port := range ports {
					to := []netip.AddrPort{server.at(port)}
					if caller == outsider {
						_, err := neighbour.hello(netip.AddrPortFrom(server.addr6, port).String())
						require.Equal(t, strings.Contains(c.want, fmt.Sprint(who, port)), err == nil, "outsider by IPv6: %v", err)
					} else if caller.node == server.node {
						to = append(to, netip.AddrPortFrom(server.addr6, port))
					}
					for _, to := range to {
						_, err := caller.hello(to.String())
						require.Equal(t, strings.Contains(c.want, fmt.Sprint(who, port)), err == nil, "%s to %s: %v", who, to, err)
					}
				}
			}
		})
	}
}

func atPort(port uint16, p model.AccessPolicy) model.AccessPolicy {
	p.Ports = []uint16{port}
	return p
}

// TestGuardsAtRandom asks Envoy what the guards of the translator's tests say, with callers of any identity.
func TestGuardsAtRandom(t *testing.T) {
	m := newMesh(t)
	callers := map[string]*forger{}
	var identities []string
	for _, name := range []string{"alice", "bob", "waypoint"} {
		f := m.nodes[0].newForger(name)
		callers[f.identity()] = f
		identities = append(identities, f.identity())
	}
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	ports := []uint16{8080, 9090, 7070}
	for _, port := range ports {
		server.greet(port)
	}
	for seed := range uint64(25) {
		some := translatetest.Guards{
			Rand: rand.New(rand.NewPCG(seed, 0)), Identities: identities, Ports: ports, Strangers: 2_000,
		}
		guard := some.Pod()
		server.enforced(guard)
		for range 8 {
			var in bool
			c := some.Caller()
			if f := callers[c.Identity]; f != nil {
				in = f.greeting(server.addr, fmt.Sprint(c.Port)) != ""
			} else {
				_, err := outsider.hello(server.at(c.Port).String())
				in = err == nil
			}
			require.Equal(t, translatetest.LetIn(guard, c, false), in, "seed %d, %+v", seed, c)
		}
	}
}

// TestOnlyTheWaypoint: where requests are decided by a waypoint nobody gets past it, whoever they are and whatever they
// call the port; and the waypoint gets nowhere else.
func TestOnlyTheWaypoint(t *testing.T) {
	m := newMesh(t)
	waypoint, other := m.nodes[0].newForger("waypoint"), m.nodes[0].newForger("other-waypoint")
	client, server := m.nodes[0].newMember("client", false), m.nodes[1].newMember("server", false)
	outsider := m.nodes[0].newPod("outsider")
	for _, port := range []uint16{8080, 9090, 7070} {
		server.greet(port)
		server.workload(port)
	}
	guard := guardOf(allows("client", from(client)))
	guard.Only = []uint16{8080}
	guard.Waypoints = []model.GuardedPort{
		{Port: 7070, Waypoint: other.identity()}, {Port: 8080, Waypoint: waypoint.identity()},
	}
	server.enforced(guard)
	require.NotEmpty(t, waypoint.greeting(server.addr, "8080"))
	require.NotEmpty(t, other.greeting(server.addr, "7070"), "where it passes on connections that it has decided on")
	for _, port := range []string{"8080", "08080", "+8080", " 8080", "8080 "} {
		require.Empty(t, other.greeting(server.addr, port), port)
	}
	require.Empty(t, waypoint.greeting(server.addr, "7070"))
	require.Empty(t, waypoint.greeting(server.addr, "9090"))
	requireRefused(t, client, server.at(8080).String())
	requireRefused(t, outsider, server.at(8080).String())
	requireHello(t, client, server.at(9090).String(), "server sees "+client.addr.String())
	m.nodes[1].proxy.logged(map[string]any{
		"source": client.identity, "verdict": "only the waypoint of its Service may connect",
	})
}

// TestTheRefusedAreNeverConnected: the application doesn't hear of who is refused, nor of a handshake that isn't done,
// and a server that speaks first isn't heard.
func TestTheRefusedAreNeverConnected(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	server.workload(8080)
	server.enforced(guardOf(allows("a", from(alice))))
	l := server.listen(8080)
	half, err := outsider.greetMTLS(server)
	require.NoError(t, err)
	defer half.Close()
	for _, caller := range []*pod{bob, outsider} {
		c, err := caller.dial(server.at(8080).String())
		require.NoError(t, err)
		_, _ = io.WriteString(c, "a request")
		heard, _ := io.ReadAll(c)
		require.Empty(t, heard)
	}
	c, err := alice.dial(server.at(8080).String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
	s, err := l.AcceptTCP()
	require.NoError(t, err)
	defer s.Close()
	require.True(t, strings.HasPrefix(s.RemoteAddr().String(), alice.addr.String()+":"), "first is %s", s.RemoteAddr())
	require.NoError(t, l.SetDeadline(time.Now()))
	_, err = l.Accept()
	require.Error(t, err, "somebody else was connected")
}

// TestListensWithItsGuard: a proxy takes no connection to a pod before it knows what guards it, so that one that
// listens beside another never closes what that one would have let in.
func TestListensWithItsGuard(t *testing.T) {
	m := newMesh(t)
	client, server := m.nodes[0].newMember("client", false), m.nodes[1].newPod("server")
	server.greet(8080)
	server.identity = names.SPIFFEID(trustDomain, server.namespace, server.name)
	m.issue(server.identity)
	server.workload(8080)
	server.configure(false)
	m.nodes[1].acked(xds.TypeListener, server.listeners(false)[0].Name)
	have, err := server.ns.Listening(names.PortMTLS, names.PortInbound)
	require.NoError(t, err)
	require.Equal(t, map[uint16]bool{names.PortMTLS: false, names.PortInbound: false}, have)
	server.guarded(guardOf())
	server.waitForListeners()
	server.capture(0)
	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
}

// TestClosedUntilTheGuardIsKnown: where the operator is away the listeners of a pod are there after a while all the
// same, and let nobody in before it has said what guards it, which takes no other listener.
func TestClosedUntilTheGuardIsKnown(t *testing.T) {
	m := newMesh(t)
	client, outsider := m.nodes[0].newMember("client", false), m.nodes[0].newPod("outsider")
	server := m.nodes[1].newPod("server")
	server.greet(8080)
	server.identity = names.SPIFFEID(trustDomain, server.namespace, server.name)
	m.issue(server.identity)
	server.workload(8080)
	server.configure(false)
	server.waitForListeners()
	server.capture(0)
	to := server.at(8080).String()
	for range 3 {
		requireRefused(t, client, to)
		requireRefused(t, outsider, to)
	}
	for _, way := range []string{"inbound-mtls", "inbound-plaintext"} {
		m.nodes[1].proxy.logged(map[string]any{"direction": way, "verdict": "what guards it is not known yet"})
	}
	changes := listenerChanges(t, m.nodes[1])
	server.enforced(guardOf())
	requireHello(t, client, to, "server sees "+client.addr.String())
	requireHello(t, outsider, to, "server sees "+outsider.addr.String())
	require.Equal(t, changes, listenerChanges(t, m.nodes[1]), "listeners changed")
}

// TestPoliciesChange: the next connection meets the new policy, and so does what is open; no listener changes.
func TestPoliciesChange(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[1].newMember("bob", false)
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	requireHello(t, alice, to, "server sees "+alice.addr.String()) // clusters are there
	requireHello(t, bob, to, "server sees "+bob.addr.String())
	changes := listenerChanges(t, m.nodes[1])
	for range 3 {
		server.enforced(guardOf())
		aliceOpen, bobOpen, outsiderOpen := alice.session(to), bob.session(to), outsider.session(to)
		server.enforced(guardOf(allows("a", from(alice))))
		requireHello(t, alice, to, "server sees "+alice.addr.String())
		requireRefused(t, bob, to)
		requireRefused(t, outsider, to)
		bobOpen.ends()
		outsiderOpen.ends()
		aliceOpen.alive()
		server.enforced(guardOf(denies("a", from(alice))))
		requireRefused(t, alice, to)
		requireHello(t, bob, to, "server sees "+bob.addr.String())
		requireHello(t, outsider, to, "server sees "+outsider.addr.String())
		aliceOpen.ends()
	}
	require.Equal(t, changes, listenerChanges(t, m.nodes[1]), "listeners changed")
}

// TestANewListenerIsGuardedAtOnce: a listener that replaces another has the guard of that one from its first connection
// on: it neither refuses nor lets in anybody else.
func TestANewListenerIsGuardedAtOnce(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[1].newMember("bob", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	server.enforced(guardOf(allows("a", from(alice))))
	replaced := make(chan struct{})
	go func() {
		defer close(replaced)
		for n := range 20 {
			for _, l := range server.listeners(false) {
				l.PerConnectionBufferLimitBytes = envoy.UInt32(uint32(envoy.HeldBytes - n - 1))
				m.apply(server.node.scope(), l.GetName(), l)
			}
			for _, name := range []string{"mtls/", "inbound/", "outbound/"} {
				server.node.acked(xds.TypeListener, name+"uid-server")
			}
		}
	}()
	for n := 0; ; n++ {
		requireHello(t, alice, to, "server sees "+alice.addr.String())
		requireRefused(t, bob, to)
		select {
		case <-replaced:
			t.Logf("%d connections each", n)
			return
		default:
		}
	}
}

// TestDryRun: what is only tried refuses nobody; who would be refused is logged, and counted by who would refuse.
func TestDryRun(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	m.log(false, true)
	server.enforced(guardOf(
		dryRun(denies("tried", from(bob))), dryRun(allows("few", from(alice), from(bob)))))
	for _, p := range []*pod{alice, bob, bob, outsider} {
		requireHello(t, p, to, "server sees "+p.addr.String())
	}
	server.enforced(guardOf(allows("a", from(alice)), dryRun(denies("b", anybody()))))
	requireHello(t, alice, to, "server sees "+alice.addr.String())
	requireRefused(t, bob, to)
	requireRefused(t, outsider, to)
	m.nodes[1].proxy.logged(map[string]any{"source": bob.identity, "verdict": "", "dryrun": "DENY default/tried rule 0"})
	m.nodes[1].proxy.logged(map[string]any{"source": bob.identity, "verdict": "no ALLOW policy of level Network matches"})
	require.Nil(t, m.nodes[1].proxy.line(map[string]any{"source": alice.identity, "dryrun": ""}), "that is no error")
	half, err := outsider.greetMTLS(server) // which no policy has refused
	require.NoError(t, err)
	require.NoError(t, half.Close())

	const metric = `envoy_fairway_authorization_total{destination_namespace="default",verdict="`
	want := []string{
		metric + `DENY default/tried rule 0",dry_run="true"} 2`,
		metric + `no ALLOW policy of level Network matches",dry_run="true"} 1`,
		metric + `DENY default/b rule 0",dry_run="true"} 1`,
		metric + `no ALLOW policy of level Network matches",dry_run="false"} 2`,
	}
	eventually.Passes(t, "refusals are counted", func(look require.TestingT) {
		stats, err := m.nodes[1].proxy.ask("/stats/prometheus")
		require.NoError(look, err)
		have := strings.Split(stats, "\n")
		have = slices.DeleteFunc(have, func(s string) bool { return !strings.HasPrefix(s, "envoy_fairway_authorization") })
		require.ElementsMatch(look, want, have)
	})
}

// TestGuardsOutliveTheProxy: an Envoy that starts anew is told the guard with the listeners, and lets in nobody before.
func TestGuardsOutliveTheProxy(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	server.enforced(guardOf(allows("a", from(alice))))
	requireHello(t, alice, to, "server sees "+alice.addr.String())
	m.nodes[1].proxy.stop()
	m.nodes[1].proxy = startProxy(t, m.nodes[1])
	eventually.NoError(t, "alice is let in", func() error {
		_, refused := bob.hello(to)
		require.Error(t, refused)
		_, err := alice.hello(to)
		return err
	})
	requireRefused(t, bob, to)
}
