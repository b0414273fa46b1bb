// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/streamtest"
)

// forger has a member's certificate and speaks mTLS itself, with nothing of the mesh between it and its victim.
type forger struct {
	*pod
	cert tls.Certificate
}

func (n *meshNode) newForger(name string) *forger {
	t := n.mesh.t
	t.Helper()
	s := n.mesh.secret("", names.SPIFFEID(trustDomain, "default", name)).GetTlsCertificate()
	cert, err := tls.X509KeyPair(s.GetCertificateChain().GetInlineBytes(), s.GetPrivateKey().GetInlineBytes())
	require.NoError(t, err)
	return &forger{n.newPod(name), cert}
}

// identity that the forger has a certificate of.
func (f *forger) identity() string { return names.SPIFFEID(trustDomain, "default", f.name) }

// serve mTLS, as a waypoint does: say which server name was asked for, and by whom.
func (f *forger) serve() {
	l := tls.NewListener(f.listen(names.PortMTLS), &tls.Config{
		Certificates: []tls.Certificate{f.cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if c := c.(*tls.Conn); c.Handshake() == nil {
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					_, _ = fmt.Fprintf(c, "%s sees %s\n", c.ConnectionState().ServerName, host)
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
}

func (f *forger) asking(serverName string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{f.cert}, MinVersion: tls.VersionTLS13, ServerName: serverName,
		InsecureSkipVerify: true, // it is the victim who must take care
	}
}

// open a connection under a server name of a victim; nil if it is refused.
func (f *forger) open(victim netip.Addr, serverName string) *session {
	c, err := f.dial(netip.AddrPortFrom(victim, names.PortMTLS).String())
	require.NoError(f.mesh.t, err)
	return greeted(f.mesh.t, tls.Client(c, f.asking(serverName)))
}

// greeting is what answers under a server name of a victim: nothing if the connection ends.
func (f *forger) greeting(victim netip.Addr, serverName string) string {
	t := f.mesh.t
	t.Helper()
	c, err := f.dial(netip.AddrPortFrom(victim, names.PortMTLS).String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	secured := tls.Client(c, f.asking(serverName))
	require.NoError(t, secured.HandshakeContext(t.Context()))
	line, err := bufio.NewReader(secured).ReadString('\n')
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%q is neither answered nor refused", serverName)
	return strings.TrimSuffix(line, "\n")
}

// TestWhatAPeerMayAskFor: a port of the pod, and nothing else; and the application sees the address that the peer comes
// from, as does the access log.
func TestWhatAPeerMayAskFor(t *testing.T) {
	m := newMesh(t)
	forger := m.nodes[0].newForger("forger")
	server := m.nodes[1].newMember("server", true)
	neighbour := m.nodes[1].newPod("neighbour")
	for _, p := range []*pod{server, neighbour} {
		p.greet(8080)
		p.greet(80)
	}
	server.workload(8080)
	require.Equal(t, "server sees "+forger.addr.String(), forger.greeting(server.addr, "8080"))
	line := m.nodes[1].proxy.logged(map[string]any{"direction": "inbound-mtls", "pod": "default/server"})
	from, err := netip.ParseAddrPort(line["from"].(string))
	require.NoError(t, err)
	require.Equal(t, forger.addr, from.Addr())

	for _, name := range []string{
		"", "x", "0", "-1", "65536", "8080x", "8080.x", "80 80", "8080,80", "8081",
		neighbour.at(8080).String(), neighbour.addr.String() + ":8080", "@" + neighbour.at(8080).String(),
		"8080@" + neighbour.addr.String(),
		"127.0.0.1:8080", "80%DOWNSTREAM_LOCAL_PORT%",
		// The proxy's own ports: what comes in by one of them must never go out by another.
		"15001", "015001", "+15001", "15006", "15008", "015008",
	} {
		require.Empty(t, forger.greeting(server.addr, name), "asked for %q", name)
	}
	require.Equal(t, "server sees "+forger.addr.String(), forger.greeting(server.addr, "8080"))
}

// TestSlowHandshakesWithPods: a connection to a pod's mTLS port that never proves an identity is not kept. The time
// limit is shortened, so that the test needn't wait for it.
func TestSlowHandshakesWithPods(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[1].newMember("server", true)
	outsider := m.nodes[0].newPod("outsider")
	for _, l := range server.listeners(true) {
		if !strings.HasPrefix(l.Name, "mtls/") {
			continue
		}
		limit := l.FilterChains[0].TransportSocketConnectTimeout.AsDuration()
		require.Positive(t, limit)
		require.LessOrEqual(t, limit, 10*time.Second)
		l.FilterChains[0].TransportSocketConnectTimeout = envoy.Duration(200 * time.Millisecond)
		require.Positive(t, l.ListenerFiltersTimeout.AsDuration())
		require.LessOrEqual(t, l.ListenerFiltersTimeout.AsDuration(), 10*time.Second)
		l.ListenerFiltersTimeout = envoy.Duration(200 * time.Millisecond)
		m.apply(server.node.scope(), l.Name, l)
		server.node.acked(xds.TypeListener, l.Name)
	}
	for _, begin := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01"} {
		c, err := outsider.dial(server.at(names.PortMTLS).String())
		require.NoError(t, err)
		_, err = io.WriteString(c, begin)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is open still")
		_ = c.Close()
	}
}

// TestAFloodOfOnePodLeavesOthersAlone: connections to a pod's mTLS port are counted before they prove anything, and one
// pod's are not another's. The limit is lowered, so that the test needn't reach it.
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
	server.takeConnections(most)
	var held []*net.TCPConn
	for range most {
		c, err := outsider.greetMTLS(server)
		require.NoError(t, err)
		held = append(held, c)
	}
	requireRefused(t, client, server.at(8080).String())
	requireHello(t, client, neighbour.at(8080).String(), "neighbour sees "+client.addr.String())
	for _, c := range held {
		require.NoError(t, c.Close())
	}
	client.reaches(t, server.at(8080).String())
}

// takeConnections lowers how many the proxy takes at the pod's mTLS port, of all peers together.
func (p *pod) takeConnections(most uint64) {
	t := p.mesh.t
	t.Helper()
	for _, l := range p.listeners(true) {
		if !strings.HasPrefix(l.Name, "mtls/") {
			continue
		}
		filter := l.FilterChains[0].Filters[0]
		limit := &connectionlimitv3.ConnectionLimit{}
		require.NoError(t, filter.GetTypedConfig().UnmarshalTo(limit))
		require.LessOrEqual(t, limit.MaxConnections.GetValue(), uint64(bootstrap.DefaultMaxConnections/16))
		limit.MaxConnections = wrapperspb.UInt64(most)
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(limit)}
		p.mesh.apply(p.node.scope(), l.Name, l)
		p.node.acked(xds.TypeListener, l.Name)
	}
}

// greetMTLS begins a handshake with a pod and stops halfway: it has proved nothing, and is open.
func (p *pod) greetMTLS(server *pod) (*net.TCPConn, error) {
	t := p.mesh.t
	t.Helper()
	c, err := p.dial(server.at(names.PortMTLS).String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	hello, err := streamtest.ClientHello(t.Context(), "8080")
	require.NoError(t, err)
	if _, err := io.WriteString(c, hello); err != nil {
		return nil, err
	}
	_, err = c.Read(make([]byte, 1)) // the server's side of the handshake
	return c, err
}

// TestAFloodOfOnePeerLeavesOthersAlone: one address takes what one may, and others have the rest of what the pod takes.
// The limits are lowered, so that the test needn't reach them.
func TestAFloodOfOnePeerLeavesOthersAlone(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", true)
	outsider := m.nodes[0].newPod("outsider")
	server.greet(8080)
	server.workload(8080)
	const most, ofOne = 6, 4
	server.takeConnections(most)
	server.capture(ofOne)
	for n := range 2 * most {
		_, err := outsider.greetMTLS(server)
		if n < ofOne {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
	}
	for range 2 * most {
		requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	}
	refused, err := capture.ReadRefused(server.ns)
	require.NoError(t, err)
	require.EqualValues(t, 2*most-ofOne, refused.Peers)
}
