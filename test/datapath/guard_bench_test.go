// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"

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
