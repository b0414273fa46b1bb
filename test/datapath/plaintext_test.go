// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestPlaintextIsCounted has a strict member dial what is in the mesh and what isn't: what left in plain text is
// counted by destination, and not what reached nobody.
func TestPlaintextIsCounted(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", true)
	server := m.nodes[1].newMember("server", false)
	plain := m.nodes[1].newPod("plain")
	server.greet(8080)
	server.workload(8080)
	server.workload(8099)
	vip := addrPort("10.96.0.9:80")
	m.service("plain", vip, 8080, plain)
	for port := uint16(8080); port < 8084; port++ {
		plain.greet(port)
		m.destination(model.Destination{Address: plain.at(port), Kind: model.DestinationPassthrough})
	}
	m.destination(model.Destination{Address: plain.at(8099), Kind: model.DestinationPassthrough})
	outside := func(to netip.AddrPort) {
		t.Helper()
		requireHello(t, client, to.String(), "plain sees "+client.addr.String())
	}
	counted := func(c require.TestingT) []string {
		stats, err := m.nodes[0].proxy.ask("/stats/prometheus")
		require.NoError(c, err)
		return regexp.MustCompile(`(?m)^envoy_fairway_plaintext_total.*$`).FindAllString(stats, -1)
	}

	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	for _, nobody := range []netip.AddrPort{server.at(8099), plain.at(8099), addrPort("10.96.0.99:80")} {
		requireRefused(t, client, nobody.String())
	}
	outside(vip)
	outside(plain.at(8080))
	outside(plain.at(8080))
	// Pods of one namespace count together.
	other := m.nodes[0].newMember("other", true)
	requireHello(t, other, vip.String(), "plain sees "+other.addr.String())
	want := []string{
		`envoy_fairway_plaintext_total{source_namespace="default",destination="node/default/plain/80"} 2`,
		`envoy_fairway_plaintext_total{source_namespace="default",destination="10_244_2_3:8080"} 2`,
	}
	eventually.Passes(t, "plaintext is counted by namespace and destination", func(look require.TestingT) {
		require.ElementsMatch(look, want, counted(look))
	})

	// Who dials ever new addresses makes the proxy count no more than so many.
	const most = 2
	for _, l := range client.listeners(true) {
		if strings.HasPrefix(l.Name, "outbound/") {
			countUpTo(t, l.FilterChains[0].Filters[1], most)
			m.apply(client.node.scope(), l.Name, l)
			client.node.acked(xds.TypeListener, l.Name)
		}
	}
	for port := uint16(8081); port < 8084; port++ {
		outside(plain.at(port))
	}
	for port := uint16(8081); port < 8084; port++ {
		m.nodes[0].proxy.logged(map[string]any{"dialled": plain.at(port).String()})
	}
	require.Len(t, slices.DeleteFunc(counted(t), func(s string) bool { return slices.Contains(want, s) }), most)
}

// countUpTo lowers, in a filter tcp_proxy, how many destinations are counted.
func countUpTo(t *testing.T, filter *listenerv3.Filter, most uint32) {
	t.Helper()
	proxy, stats := &tcpproxyv3.TcpProxy{}, &statsv3.Config{}
	require.NoError(t, filter.GetTypedConfig().UnmarshalTo(proxy))
	i := slices.IndexFunc(proxy.AccessLog, func(l *accesslogv3.AccessLog) bool {
		return l.GetTypedConfig().MessageIs(stats)
	})
	require.GreaterOrEqual(t, i, 0)
	require.NoError(t, proxy.AccessLog[i].GetTypedConfig().UnmarshalTo(stats))
	require.LessOrEqual(t, stats.StatsScope.GetMaxCounters().GetValue(), uint32(200))
	stats.StatsScope.MaxCounters = envoy.UInt32(most)
	proxy.AccessLog[i].ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: envoy.Any(stats)}
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(proxy)}
}
