// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// BenchmarkGuards is BenchmarkConnect to servers with guards of so many policies, twenty accounts each, the last of
// which is the client's, and to one whose listeners have no guard at all.
func BenchmarkGuards(b *testing.B) {
	m := newMesh(b)
	client, outsider := m.nodes[0].newMember("client", false), m.nodes[0].newPod("outsider")
	server := func(name string) *pod {
		p := m.nodes[1].newMember(name, false)
		p.workload(8080)
		p.echo(8080)
		p.capture(0)
		return p
	}
	var servers []*pod
	for _, policies := range []int{0, 1, 10, 100} {
		p := server(fmt.Sprintf("%d-policies", policies))
		p.enforced(policiesFor(client, policies))
		servers = append(servers, p)
	}
	servers = append(servers, server("no-guard"))
	servers[len(servers)-1].unguarded()
	for round := range 4 { // in turn
		for _, p := range servers {
			for way, from := range map[string]*pod{"mTLS": client, "plain text": outsider} {
				b.Run(fmt.Sprintf("%s, %s, %d", way, p.name, round), func(b *testing.B) {
					before := m.cpu()
					connect(b, from, p.at(8080))
					b.ReportMetric(float64((m.cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
				})
			}
		}
	}
}

// policiesFor are so many, all of which must be asked.
func policiesFor(client *pod, policies int) (g model.PodGuard) {
	for n := range policies {
		r := model.AccessRule{Ports: []uint16{8080, 9090}}
		for account := range 20 {
			r.Sources = append(r.Sources, model.AccessSource{
				Identity: names.SPIFFEID(trustDomain, "consumers", fmt.Sprintf("account-%d-%d", n, account)),
			})
		}
		rules := []model.AccessRule{r}
		if n == policies-1 {
			rules = append(rules, from(client), anybody())
		}
		g.Network = append(g.Network, allows(fmt.Sprint("p", n), rules...))
	}
	return g
}

// unguarded gives the pod the listeners of a mesh without policies: an address instead of what makes one.
func (p *pod) unguarded() {
	t := p.mesh.t
	for _, l := range p.listeners(false) {
		target := p.addr.String() + ":%REQUESTED_SERVER_NAME%"
		switch {
		case strings.HasPrefix(l.GetName(), "outbound/"):
			continue
		case strings.HasPrefix(l.GetName(), "inbound/"):
			target = names.ApplicationAddress + ":%DOWNSTREAM_LOCAL_PORT%"
		}
		filters := l.FilterChains[0].Filters
		set := envoy.SetFilterState(
			envoy.FilterState(envoy.FilterStateNetns, envoy.FactoryHashableString, envoy.Literal(p.ns.Path()), envoy.SharedOnce),
			envoy.FilterState(envoy.FilterStateOriginalDst, "", target, envoy.SharedNot))
		last := len(filters) - 1
		proxy := &tcpproxyv3.TcpProxy{}
		require.NoError(t, filters[last].GetTypedConfig().UnmarshalTo(proxy))
		proxy.AccessLog = proxy.AccessLog[:1]
		filters[last].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(proxy)}
		l.FilterChains[0].Filters = append(filters[:last-3:last-3], set, filters[last])
		p.mesh.apply(p.node.scope(), l.GetName(), l)
		p.node.acked(xds.TypeListener, l.GetName())
	}
}

// BenchmarkEditWithOpenConnections is what an edit of a policy costs the agent (this process, in which all else is
// idle) while its pod has so many connections open, half of them in plain text: one that changes nothing for them, and
// one that ends half of those in mTLS. With ten policies of twenty accounts each.
func BenchmarkEditWithOpenConnections(b *testing.B) {
	const each = 4_800 // a process has no more descriptors on some machines
	m := newMesh(b)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	outsider, server := m.nodes[0].newPod("outsider"), m.nodes[1].newMember("server", false)
	netnstest.Serve(b, server.ns, ":8080", func(c net.Conn) { // without the pipes that io.Copy has
		_, _ = fmt.Fprintln(c, "hello")
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 64))
	})
	server.workload(8080)
	server.capture(0)
	server.enforced(guardOf())
	var plain []*session
	for range each {
		plain = append(plain, outsider.session(server.at(8080).String()))
	}
	edit := func(name string, n int, p model.AccessPolicy, ends ...*session) {
		b.Run(fmt.Sprint(name, " ", n), func(b *testing.B) {
			g := policiesFor(alice, 10)
			g.Network = append(g.Network, p)
			before := agentCPU(b)
			server.enforced(g)
			for _, s := range ends {
				s.ends()
			}
			b.ReportMetric(float64((agentCPU(b) - before).Microseconds()), "cpu-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
	for round := range 2 {
		var of [2][]*session
		for n, p := range []*pod{alice, bob} {
			for range each / 2 {
				of[n] = append(of[n], p.session(server.at(8080).String()))
			}
		}
		edit("nothing changes", round, denies("x", anybody(uint16(1+round))))
		edit("again", round, denies("y", anybody(uint16(10+round))))
		edit("half of mTLS ends", round, denies("x", from(bob)), of[1]...)
		for _, s := range slices.Concat(of[0], plain) {
			s.alive()
		}
		for _, s := range slices.Concat(of[:]...) {
			_ = s.c.Close()
		}
		server.enforced(guardOf())
	}
}

// agentCPU is what this process has used.
func agentCPU(t testing.TB) time.Duration {
	u := &unix.Rusage{}
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
