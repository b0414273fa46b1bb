// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// ask reads a page of the proxy's admin interface.
func (p *proxy) ask(path string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.admin)
		},
	}}
	response, err := client.Get("http://envoy" + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return string(b), err
}

// log sets what proxies log, and waits until they do.
func (m *mesh) log(logAll, logErrors bool) {
	m.t.Helper()
	for _, n := range m.nodes {
		layer := envoy.RuntimeLayer(logAll, logErrors)
		m.apply(n.scope(), names.RuntimeLayer, layer)
		eventually.Passes(m.t, "the proxy knows what to log", func(look require.TestingT) {
			runtime, err := n.proxy.ask("/runtime")
			require.NoError(look, err)
			for key, value := range layer.GetLayer().AsMap() {
				percent := map[bool]string{true: "100", false: "0"}[value == 100.0]
				require.Regexp(look, key+`": \{\s*"final_value": "`+percent+`"`, runtime)
			}
		})
	}
}

// TestAccessLogModes changes what is logged under an open connection.
func TestAccessLogModes(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	outsider := m.nodes[0].newPod("outsider")
	server.greet(8080)
	for _, port := range []uint16{8080, 8098, 8099} {
		server.workload(port)
	}
	open, err := client.dial(server.at(8080).String())
	require.NoError(t, err)
	defer open.Close()
	echoes := func() {
		t.Helper()
		_, err := io.WriteString(open, "x")
		require.NoError(t, err)
		_, err = io.ReadFull(open, make([]byte, 1))
		require.NoError(t, err, "an open connection outlives the change")
	}
	_, err = io.ReadFull(open, make([]byte, len("server sees "+client.addr.String()+"\n")))
	require.NoError(t, err)

	serve := func(vip string) {
		t.Helper()
		m.service("web", addrPort(vip), 8080, server)
		client.reaches(t, vip)
	}
	m.log(false, true)
	echoes()
	serve("10.96.0.9:80")
	requireRefused(t, client, server.at(8099).String())
	requireRefused(t, outsider, server.at(8080).String())
	m.nodes[1].proxy.logged(map[string]any{"direction": "inbound-mtls", "dialled": server.at(8099).String()})
	m.nodes[1].proxy.logged(map[string]any{"direction": "inbound-plaintext", "pod": "default/server"})

	m.log(false, false)
	echoes()
	serve("10.96.0.10:80")
	requireRefused(t, client, server.at(8098).String())
	for _, n := range m.nodes { // what has ended is logged, or not, only when the proxy has seen its end
		eventually.Passes(t, "one connection stays open", func(look require.TestingT) {
			stats, err := n.proxy.ask(`/stats?filter=^cluster\.[^x].*\.upstream_cx_active$`)
			require.NoError(look, err)
			require.Len(look, regexp.MustCompile(`active: [1-9]`).FindAllString(stats, -1), 1, "the one that stays open")
		})
	}

	m.log(true, true)
	echoes()
	serve("10.96.0.11:80")
	// Where it went is an address, in plain text as well.
	outsider.greet(8081)
	m.destination(model.Destination{Address: outsider.at(8081), Kind: model.DestinationPassthrough})
	requireHello(t, client, outsider.at(8081).String(), "outsider sees "+client.addr.String())
	for _, to := range []netip.AddrPort{outsider.at(8081), netip.AddrPortFrom(server.addr, names.PortMTLS)} {
		m.nodes[0].proxy.logged(map[string]any{"direction": "outbound", "to": to.String()})
	}
	m.nodes[0].proxy.logged(map[string]any{"dialled": "10.96.0.11:80"})
	m.nodes[1].proxy.logged(map[string]any{"dialled": server.at(8080).String()})
	for _, n := range m.nodes {
		require.Nil(t, n.proxy.line(map[string]any{"dialled": "10.96.0.9:80", "flags": "-"}), "it did not fail")
		require.Nil(t, n.proxy.line(map[string]any{"dialled": "10.96.0.10:80"}), "nothing is logged")
		require.Nil(t, n.proxy.line(map[string]any{"dialled": server.at(8098).String()}), "nothing is logged")
	}
}

// TestMetricNames: what a proxy counts has a name that doesn't depend on what was dialled.
func TestMetricNames(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	server.workload(8080)
	m.service("web", addrPort("10.96.0.9:80"), 8080, server)
	requireHello(t, client, "10.96.0.9:80", "server sees "+client.addr.String())
	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	requireRefused(t, client, "10.96.0.99:80")
	stats, err := m.nodes[0].proxy.ask("/stats/prometheus")
	require.NoError(t, err)
	require.NotRegexp(t, `(?m)^(# TYPE )?envoy_cluster_\d`, stats)
	require.NotContains(t, stats, "10_96_0_99", "nothing is made of what leads nowhere")
	for _, cluster := range []string{"node/default/web/80", "10_244_2_2:8080"} {
		require.Regexp(t, `(?m)^envoy_cluster_upstream_cx_total\{envoy_cluster_name="`+strings.ReplaceAll(
			cluster, ":", "[:_]")+`"\} `, stats)
	}
	stats, err = m.nodes[1].proxy.ask("/stats/prometheus")
	require.NoError(t, err)
	for _, metric := range []string{
		`envoy_tcp_downstream_cx_total{envoy_tcp_prefix="mtls"} 2`,
		`envoy_connection_limit_limited_connections{envoy_connection_limit_prefix="mtls"} 0`,
		`envoy_listener_local_ratelimit_rate_limited{envoy_local_listener_ratelimit_prefix="mtls"} 0`,
	} {
		require.Contains(t, stats, metric+"\n", "what came in is counted")
	}
}

// TestStatisticsOfAddresses: of what is dialled proxies make the statistics that are kept, and no others.
func TestStatisticsOfAddresses(t *testing.T) {
	m := newMesh(t)
	member := func(name string) *pod {
		p := m.nodes[0].newPod(name)
		p.addIPv6()
		p.join(false)
		return p
	}
	client, server := member("client"), member("server")
	server.greet(8080)
	server.workload(8080)
	web, wrong, own6 := addrPort("10.96.0.9:80"), addrPort("10.96.0.10:80"), netip.AddrPortFrom(server.addr6, 8080)
	m.service("web", web, 8080, server)
	m.service("wrong", wrong, 8080, server)
	m.destination(model.Destination{
		Address: wrong, Kind: model.DestinationService, Identities: []string{"spiffe://cluster.local/ns/default/sa/other"},
		Port: model.ServicePort{Namespace: "default", Service: "wrong", Port: 80},
	})
	m.destination(model.Destination{
		Address: own6, Kind: model.DestinationWorkload, Identities: []string{server.identity},
	})
	requireHello(t, client, web.String(), "server sees "+client.addr.String())
	requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	requireHello(t, client, own6.String(), "server sees "+client.addr6.String())
	requireRefused(t, client, wrong.String())
	requireRefused(t, client, "10.96.0.99:80")

	page, err := m.nodes[0].proxy.ask(`/stats?filter=^cluster\.`)
	require.NoError(t, err)
	for _, want := range []string{
		`node/default/web/80\.upstream_cx_total: 1`, `node/default/web/80\.membership_healthy: 1`,
		`10_244_1_3_8080\.upstream_rq_total: 1`, `10_244_1_3_8080\.ssl\.fail_verify_san: 0`,
		`node/default/wrong/80\.ssl\.fail_verify_san: [1-9]`, `\[fd00_244_1__3\]_8080\.upstream_cx_total: 1`,
	} {
		require.Regexp(t, `(?m)^cluster\.`+want, page)
	}
	for line := range strings.Lines(page) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "cluster."), ": ")
		cluster, statistic, _ := strings.Cut(name, ".")
		if cluster == names.ClusterXDS || cluster == upstream.ClusterDirect {
			continue
		}
		require.Contains(t, envoy.StatsOfConnections(), statistic, line)
		require.NotEqual(t, "nowhere", cluster)
	}
}
