// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

// soon bounds how long a connection may outlive the acknowledgement of the guard that refuses it: a second, on a
// machine that has time for its tests. It is far below a minute, after which proxies tell again what is open.
const soon = 10 * time.Second

// endsBefore is ends, with a bound.
func (s *session) endsBefore(bound time.Time) error {
	if err := s.c.SetDeadline(bound); err != nil {
		return err
	}
	_, err := s.r.ReadByte()
	switch {
	case err == nil:
		return errors.New("there is more to read")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it is still open")
	}
	return nil
}

// TestWhatIsOpenMeetsNewGuards: once a pod's proxy goes by a guard, connections that it would refuse end, by whatever
// way they came, and all others stay: from another node and from the same, in plain text, by either IP family.
func TestWhatIsOpenMeetsNewGuards(t *testing.T) {
	m := newMesh(t)
	dual := func(n *meshNode, name string) *pod {
		p := n.newPod(name)
		p.addIPv6()
		return p
	}
	outsider, neighbour := dual(m.nodes[0], "outsider"), dual(m.nodes[1], "neighbour") // IPv6 has no way between the nodes
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
	callers := map[string]way{ // by name and IP family
		"alice":      {from: alice, address: netip.AddrPortFrom(server.addr, 0)},
		"bob":        {from: bob, address: netip.AddrPortFrom(server.addr, 0)},
		"bob6":       {from: bob, address: netip.AddrPortFrom(server.addr6, 0)},
		"outsider":   {from: outsider, address: netip.AddrPortFrom(server.addr, 0)},
		"neighbour":  {from: neighbour, address: netip.AddrPortFrom(server.addr, 0)},
		"neighbour6": {from: neighbour, address: netip.AddrPortFrom(server.addr6, 0)},
	}
	plain, mtls := []string{"outsider", "neighbour", "neighbour6"}, []string{"alice", "bob", "bob6"}
	at := func(port uint16, who ...string) (out []string) {
		for _, w := range who {
			out = append(out, fmt.Sprint(w, " ", port))
		}
		return out
	}
	all := slices.Concat(at(8080, mtls...), at(9090, mtls...), at(8080, plain...), at(9090, plain...))
	namespace := model.AccessRule{Sources: []model.AccessSource{
		{Identity: names.SPIFFENamespace(alice.identity), Prefix: true},
	}}
	only := guardOf()
	only.Only = []uint16{8080}
	for name, c := range map[string]struct {
		guard model.PodGuard
		stay  []string
	}{
		"an account":             {guardOf(allows("a", from(alice))), slices.Concat(at(8080, "alice"), at(9090, "alice"))},
		"an account at a port":   {guardOf(allows("a", from(bob, 9090))), at(9090, "bob", "bob6")},
		"a namespace":            {guardOf(allows("a", namespace)), slices.Concat(at(8080, mtls...), at(9090, mtls...))},
		"deny an account":        {guardOf(denies("a", from(alice))), without(all, at(8080, "alice"), at(9090, "alice"))},
		"deny an account's port": {guardOf(denies("a", from(bob, 8080))), without(all, at(8080, "bob", "bob6"))},
		"deny a port":            {guardOf(denies("a", anybody(8080))), slices.Concat(at(9090, mtls...), at(9090, plain...))},
		"a port for all": {
			guardOf(allows("a", from(alice), anybody(9090))),
			slices.Concat(at(8080, "alice"), at(9090, mtls...), at(9090, plain...)),
		},
		"default deny":              {model.PodGuard{Guard: model.Guard{DefaultDeny: true}}, nil},
		"a port of a waypoint only": {only, slices.Concat(at(9090, mtls...), at(9090, plain...))},
		"what is only tried":        {guardOf(dryRun(denies("a", anybody())), dryRun(allows("b"))), all},
		"what changes nothing":      {guardOf(denies("a", anybody(7070))), all},
	} {
		t.Run(name, func(t *testing.T) {
			server.enforced(guardOf())
			open := map[string]*session{}
			for who, w := range callers {
				for _, port := range ports {
					to := netip.AddrPortFrom(w.address.Addr(), port)
					open[fmt.Sprint(who, " ", port)] = w.from.session(to.String())
				}
			}
			server.enforced(c.guard)
			bound := time.Now().Add(soon)
			for who, s := range open {
				if !slices.Contains(c.stay, who) {
					require.NoError(t, s.endsBefore(bound), who)
				}
			}
			t.Logf("all have ended after %s", time.Since(bound.Add(-soon)))
			for who, s := range open {
				if slices.Contains(c.stay, who) {
					s.alive()
				}
			}
			server.enforced(guardOf(denies("again", anybody(7071))))
			for who, s := range open {
				if slices.Contains(c.stay, who) {
					s.alive()
				}
				require.NoError(t, s.c.Close())
			}
		})
	}
}

func without(all []string, out ...[]string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(slices.Concat(out...), s) })
}

// TestWhatIsOpenAgreesWithWhatComes: after each of many guards at random, those who could connect now are those whose
// connections are still open, with ports in every spelling that Envoy takes.
func TestWhatIsOpenAgreesWithWhatComes(t *testing.T) {
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
	type kept struct {
		caller translatetest.Caller
		*session
	}
	var open []kept
	connect := func(c translatetest.Caller, spelling string) *session {
		if f := callers[c.Identity]; f != nil {
			return f.open(server.addr, fmt.Sprintf(spelling, c.Port))
		}
		return outsider.opens(server.at(c.Port).String())
	}
	for seed := range uint64(25) {
		some := translatetest.Guards{
			Rand: rand.New(rand.NewPCG(seed, 1)), Identities: identities, Ports: ports, Strangers: 2_000,
		}
		guard := some.Pod()
		server.enforced(guard)
		bound := time.Now().Add(soon)
		open = slices.DeleteFunc(open, func(k kept) bool {
			if translatetest.LetIn(guard, k.caller, false) {
				k.alive() // and asked again in the next round
				return false
			}
			require.NoError(t, k.endsBefore(bound), "seed %d, %+v", seed, k.caller)
			return true
		})
		for _, id := range append(identities, "") {
			for _, port := range ports {
				c := translatetest.Caller{Identity: id, Port: port}
				s := connect(c, []string{"%d", "0%d", "000%d"}[some.Rand.IntN(3)])
				require.Equal(t, translatetest.LetIn(guard, c, false), s != nil, "seed %d, %+v", seed, c)
				if s != nil {
					open = append(open, kept{c, s})
				}
			}
		}
		t.Logf("seed %d: %d open", seed, len(open))
	}
}

// TestWhatComesWhileAGuardChanges: connections that were let in by the guard before, while it changed, end as well.
func TestWhatComesWhileAGuardChanges(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[1].newMember("bob", false)
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	server.capture(0)
	to := server.at(8080).String()
	for _, p := range []*pod{alice, bob} {
		requireHello(t, p, to, "server sees "+p.addr.String())
	}
	for range 5 {
		server.enforced(guardOf())
		stays := alice.session(to)
		var g errgroup.Group
		stop := make(chan struct{})
		var mu sync.Mutex
		var open []*session
		for _, p := range []*pod{bob, outsider, bob, outsider} {
			g.Go(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					if s := p.opens(to); s != nil {
						mu.Lock()
						open = append(open, s)
						mu.Unlock()
					}
				}
			})
		}
		eventually.Passes(t, "connections come", func(look require.TestingT) {
			mu.Lock()
			defer mu.Unlock()
			require.Greater(look, len(open), 30)
		})
		server.enforced(guardOf(allows("a", from(alice))))
		bound := time.Now().Add(soon)
		requireRefused(t, bob, to)
		close(stop)
		require.NoError(t, g.Wait())
		for _, s := range open {
			require.NoError(t, s.endsBefore(bound))
			require.NoError(t, s.c.Close())
		}
		stays.alive()
		t.Logf("%d connections ended", len(open))
	}
}

// TestAnAgentThatStartedAnewKnowsWhatIsOpen: it hears of it again, and asks the guard that it finds, also if that has
// changed meanwhile.
func TestAnAgentThatStartedAnewKnowsWhatIsOpen(t *testing.T) {
	m := newMesh(t)
	m.retell = 200 * time.Millisecond
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[1].newMember("bob", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	to := server.at(8080).String()
	server.enforced(guardOf())
	stays, goes := alice.session(to), bob.session(to)
	m.nodes[1].stopKeeping()
	server.enforced(guardOf(allows("a", from(alice)))) // nobody hears of it
	goes.alive()
	m.nodes[1].keep()
	goes.ends()
	stays.alive()
	server.enforced(guardOf(denies("a", from(alice))))
	stays.ends()
}

// TestNobodyHoldsAConnectionThatIsRefused by not reading: neither side gets what the proxy holds for it.
func TestNobodyHoldsAConnectionThatIsRefused(t *testing.T) {
	m := newMesh(t)
	bob, outsider := m.nodes[0].newMember("bob", false), m.nodes[0].newPod("outsider")
	server := m.nodes[1].newMember("server", false)
	server.workload(8080)
	server.enforced(guardOf())
	l := server.listen(8080)
	var held []net.Conn
	for _, p := range []*pod{bob, outsider} {
		c, err := p.dial(server.at(8080).String())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
		s, err := l.Accept()
		require.NoError(t, err)
		defer s.Close()
		for _, side := range []net.Conn{c, s} { // until all is full
			require.NoError(t, side.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
			_, err = io.Copy(side, rand.NewChaCha8([32]byte{}))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		held = append(held, s)
	}
	server.enforced(guardOf(denies("a", anybody())))
	bound := time.Now().Add(soon)
	for _, s := range held {
		require.NoError(t, s.SetDeadline(bound))
		_, err := io.Copy(io.Discard, s)
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
}

// TestProbesOutliveGuards: those of kubelet don't pass the proxy, and no guard is asked about them.
func TestProbesOutliveGuards(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	probes := []netip.AddrPort{server.at(8080)}
	require.NoError(t, capture.ApplyHost(m.nodes[1].ns, capture.Host{Probes: probes}))
	require.NoError(t, capture.UpdateSets(server.ns, capture.Pod{Proxy: server.node.mark, Ranges: ranges, Probes: probes}))
	outsider := m.nodes[0].newPod("outsider")
	open := outsider.session(server.at(8080).String())
	probe := sessionIn(t, m.nodes[1].ns.Do, server.at(8080).String())
	server.enforced(guardOf(denies("a", anybody())))
	open.ends()
	probe.alive()
}
