// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// forger has a member's certificate and speaks HBONE itself, with nothing of the mesh between it and its victim.
type forger struct {
	*pod
	h2 *http.Transport
}

func (n *meshNode) newForger(name string) *forger {
	t := n.mesh.t
	t.Helper()
	f := &forger{pod: n.newPod(name)}
	s := n.mesh.ca.secret("", names.SPIFFEID(trustDomain, "default", name)).GetTlsCertificate()
	cert, err := tls.X509KeyPair(s.GetCertificateChain().GetInlineBytes(), s.GetPrivateKey().GetInlineBytes())
	require.NoError(t, err)
	protocols := &http.Protocols{}
	protocols.SetHTTP2(true)
	f.h2 = &http.Transport{Protocols: protocols, DialTLSContext: func(ctx context.Context, _, to string) (net.Conn, error) {
		c, err := f.dial(to)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(c, &tls.Config{
			Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
			InsecureSkipVerify: true, // it is the victim who must take care
		})
		return secured, secured.HandshakeContext(ctx)
	}}
	t.Cleanup(f.h2.CloseIdleConnections)
	return f
}

// greeting is what an application says through a tunnel whose CONNECT has these headers.
func (f *forger) greeting(victim netip.Addr, authority string, header http.Header) string {
	t := f.mesh.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	body, w := io.Pipe()
	defer w.Close()
	resp, err := f.h2.RoundTrip((&http.Request{
		Method: http.MethodConnect, Host: authority, Header: header, Body: body,
		URL: &url.URL{Scheme: "https", Host: netip.AddrPortFrom(victim, names.PortHBONE).String()},
	}).WithContext(ctx))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	require.NoError(t, err)
	return line[:len(line)-1]
}

// TestNobodyChoosesItsAddress: whatever a peer says in its CONNECT, the application sees the address that it comes from, and
// so does the access log.
func TestNobodyChoosesItsAddress(t *testing.T) {
	m := newMesh(t)
	forger := m.nodes[0].newForger("forger")
	server := m.nodes[1].newMember("server", true)
	server.greet(8080)
	for _, address := range []string{
		"127.0.0.1", "169.254.77.1", "10.244.2.99", m.nodes[1].addr.String(), server.addr.String(), "::1", "198.51.100.7, 127.0.0.1",
	} {
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Envoy-External-Address"} {
			value := address
			if name == "Forwarded" {
				value = "for=" + address
			}
			require.Equal(t, "server sees "+forger.addr.String(),
				forger.greeting(server.addr, server.at(8080).String(), http.Header{name: {value}}), "%s: %s", name, value)
		}
	}
	line := m.nodes[1].proxy.logged(map[string]any{"direction": "inbound-hbone", "pod": "default/server"})
	from, err := netip.ParseAddrPort(line["from"].(string))
	require.NoError(t, err)
	require.Equal(t, forger.addr, from.Addr())
}

// TestSlowHandshakesWithPods: a connection to a pod's HBONE port that never proves an identity is not kept. The time limit
// is shortened, so that the test needn't wait for it.
func TestSlowHandshakesWithPods(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[1].newMember("server", true)
	outsider := m.nodes[0].newPod("outsider")
	for _, l := range server.listeners(true) {
		if !strings.HasPrefix(l.Name, "hbone/") {
			continue
		}
		limit := l.FilterChains[0].TransportSocketConnectTimeout.AsDuration()
		require.Positive(t, limit)
		require.LessOrEqual(t, limit, 10*time.Second)
		l.FilterChains[0].TransportSocketConnectTimeout = envoy.Duration(200 * time.Millisecond)
		m.apply(server.node.scope(), l.Name, l)
		server.node.acked(xds.TypeListener, l.Name)
	}
	for _, begin := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01"} {
		c, err := outsider.dial(server.at(names.PortHBONE).String())
		require.NoError(t, err)
		_, err = io.WriteString(c, begin)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is open still")
		_ = c.Close()
	}
}

// TestAFloodOfOnePodLeavesOthersAlone: connections to a pod's HBONE port are counted before they prove anything, and one pod's
// are not another's. The limit is lowered, so that the test needn't reach it.
func TestAFloodOfOnePodLeavesOthersAlone(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	neighbour := m.nodes[1].newMember("neighbour", true)
	outsider := m.nodes[0].newPod("outsider")
	for _, p := range []*pod{server, neighbour} {
		p.greet(8080)
		p.workload(8080)
	}
	const most = 3
	for _, l := range server.listeners(true) {
		if !strings.HasPrefix(l.Name, "hbone/") {
			continue
		}
		filter := l.FilterChains[0].Filters[0]
		limit := &connectionlimitv3.ConnectionLimit{}
		require.NoError(t, filter.GetTypedConfig().UnmarshalTo(limit))
		require.LessOrEqual(t, limit.MaxConnections.GetValue(), uint64(bootstrap.DefaultMaxConnections/16))
		limit.MaxConnections = wrapperspb.UInt64(most)
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(limit)}
		m.apply(server.node.scope(), l.Name, l)
		server.node.acked(xds.TypeListener, l.Name)
	}
	silent := func() *net.TCPConn {
		c, err := outsider.dial(server.at(names.PortHBONE).String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var held []*net.TCPConn
	for range most {
		held = append(held, silent())
	}
	// Connections come to Envoy's threads in any order, so any of them may be the one too many.
	closed := make(chan struct{}, most+1)
	for _, c := range append(held, silent()) {
		go func() {
			_, _ = io.Copy(io.Discard, c)
			closed <- struct{}{}
		}()
	}
	<-closed
	requireRefused(t, client, server.at(8080).String())
	requireHello(t, client, neighbour.at(8080).String(), "neighbour sees "+client.addr.String())
	for _, c := range held {
		require.NoError(t, c.Close())
	}
	requireEventually(t, func() error { _, err := client.hello(server.at(8080).String()); return err })
}
