// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// way is one in which a connection can pass the proxies.
type way struct {
	from, to *pod
	address  netip.AddrPort
}

// ways are all of them, by name.
func ways(t *testing.T, m *mesh) map[string]way {
	t.Helper()
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	neighbour := m.nodes[0].newMember("neighbour", false)
	plain := m.nodes[1].newPod("plain")
	outsider := m.nodes[0].newPod("outsider")
	m.service("web", addrPort("10.96.0.9:80"), 7000, server)
	m.service("plain", addrPort("10.96.0.10:80"), 7000, plain)
	neighbour.workload(7000)
	return map[string]way{
		"mTLS to another node":    {client, server, addrPort("10.96.0.9:80")},
		"mTLS on one node":        {client, neighbour, neighbour.at(7000)},
		"plaintext out of mesh":   {client, plain, addrPort("10.96.0.10:80")},
		"plaintext into the mesh": {outsider, server, server.at(7000)},
	}
}

// everyWay has those between neighbours as well, in a mesh of their own.
func everyWay(t *testing.T) map[string]way {
	t.Helper()
	out := ways(t, newMesh(t))
	m := newNeighbourMesh(t)
	client, neighbour := m.nodes[0].newMember("client", false), m.nodes[0].newMember("neighbour", true)
	m.service("near", addrPort("10.96.0.9:80"), 7000, neighbour)
	w := way{client, neighbour, addrPort("10.96.0.9:80")}
	w.isNear(t)
	out["between neighbours"] = w
	return out
}

// TestStreams checks that a connection through the proxies behaves as one without.
func TestStreams(t *testing.T) {
	for name, way := range everyWay(t) {
		t.Run(name, func(t *testing.T) {
			l := way.to.listen(7000)
			defer l.Close()
			var told sync.Once
			connect := func(t *testing.T) (client, server *net.TCPConn) {
				c, err := way.from.dial(way.address.String())
				require.NoError(t, err)
				require.NoError(t, l.SetDeadline(time.Now().Add(patience)))
				s, err := l.AcceptTCP()
				require.NoError(t, err)
				require.NoError(t, s.SetDeadline(time.Now().Add(patience)))
				t.Cleanup(func() {
					if t.Failed() {
						told.Do(func() { way.from.tellSockets(t); way.to.tellSockets(t) })
					}
					_ = c.Close()
					_ = s.Close()
				})
				return c, s
			}
			t.Run("client closes its side first", func(t *testing.T) {
				c, s := connect(t)
				halfClose(t, c, s)
			})
			t.Run("server answers, closes its side, and the client reads late", func(t *testing.T) {
				for range 20 {
					for _, size := range []int{1, 1 << 10, 1 << 20} {
						c, s := connect(t)
						closeAfterAnswer(t, c, s, size)
					}
				}
			})
			t.Run("client resets", func(t *testing.T) {
				c, s := connect(t)
				_, err := io.WriteString(c, "x")
				require.NoError(t, err)
				_, err = io.ReadFull(s, make([]byte, 1))
				require.NoError(t, err)
				require.NoError(t, c.SetLinger(0))
				require.NoError(t, c.Close())
				_, err = io.ReadAll(s)
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				requireNoTimeout(t, err)
			})
			t.Run("server closes", func(t *testing.T) {
				c, s := connect(t)
				require.NoError(t, s.Close())
				_, err := io.ReadAll(c)
				requireNoTimeout(t, err)
			})
			t.Run("a lot, both ways at once", func(t *testing.T) {
				c, s := connect(t)
				var g errgroup.Group
				g.Go(func() error { return pump(c, 1, 2, nil) })
				received := make(chan struct{})
				g.Go(func() error { return pump(s, 2, 1, received) })
				require.NoError(t, g.Wait())
			})
		})
	}
}

// tellSockets logs what the kernel holds of the pod's connections, the application's and the proxy's: where what is on
// its way has stopped.
func (p *pod) tellSockets(t *testing.T) {
	t.Helper()
	for _, table := range []string{"tcp", "tcp6", "stat/nf_conntrack"} {
		err := p.ns.Do(func() error {
			text, err := os.ReadFile("/proc/thread-self/net/" + table)
			t.Logf("%s, %s:\n%s", p.name, table, text)
			return err
		})
		if err != nil {
			t.Logf("%s: %v", p.name, err)
		}
	}
}

// halfClose checks that b can still send after a has closed its sending side.
func halfClose(t *testing.T, a, b *net.TCPConn) {
	t.Helper()
	_, err := io.WriteString(a, "question")
	require.NoError(t, err)
	require.NoError(t, a.CloseWrite())
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, "question", string(got))
	_, err = io.WriteString(b, "answer")
	require.NoError(t, err)
	require.NoError(t, b.CloseWrite())
	got, err = io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

// closeAfterAnswer checks that nothing of an answer is lost when the server closes its side right behind it.
func closeAfterAnswer(t *testing.T, client, server *net.TCPConn, size int) {
	t.Helper()
	answer := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(answer)
	_, err := io.WriteString(client, "question")
	require.NoError(t, err)
	_, err = io.ReadFull(server, make([]byte, len("question")))
	require.NoError(t, err)
	var g errgroup.Group
	g.Go(func() error {
		if _, err := server.Write(answer); err != nil {
			return err
		}
		return server.CloseWrite()
	})
	// In small pieces, so that most of it is still on the way when the end comes.
	got, err := io.ReadAll(iotest.HalfReader(client))
	require.NoError(t, err, "%d of %d bytes came", len(got), size)
	require.NoError(t, g.Wait())
	require.Equal(t, sha256.Sum256(answer), sha256.Sum256(got))
}

// transfer is a size far above all buffers on the way.
const transfer = 64 << 20

// pump sends the bytes of one seed and expects those of another. With a channel it closes its side once it has received
// everything; without, once it has sent everything.
func pump(c *net.TCPConn, sendSeed, wantSeed uint64, received chan struct{}) error {
	var g errgroup.Group
	stream := func(seed uint64) io.Reader {
		var key [32]byte
		key[0] = byte(seed)
		return io.LimitReader(rand.NewChaCha8(key), transfer)
	}
	g.Go(func() error {
		if _, err := io.Copy(c, stream(sendSeed)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if received != nil {
			<-received
		}
		return c.CloseWrite()
	})
	g.Go(func() error {
		if received != nil {
			defer close(received)
		}
		have, want := sha256.New(), sha256.New()
		if _, err := io.Copy(have, c); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		_, _ = io.Copy(want, stream(wantSeed))
		if h, w := have.Sum(nil), want.Sum(nil); string(h) != string(w) {
			return fmt.Errorf("received other bytes than were sent")
		}
		return nil
	})
	return g.Wait()
}

func requireNoTimeout(t *testing.T, err error) {
	t.Helper()
	var te net.Error
	if errors.As(err, &te) {
		require.False(t, te.Timeout(), "%v", err)
	}
}

// TestManyConnections checks that connections of many sources at once keep apart.
func TestManyConnections(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	vip := addrPort("10.96.0.9:80")
	m.service("web", vip, 8080, server)
	var g errgroup.Group
	for i := range 4 {
		p := m.nodes[i%2].newMember(fmt.Sprintf("client%d", i), false)
		for range 8 {
			g.Go(func() error {
				for range 25 {
					have, err := p.hello(vip.String())
					if err != nil {
						return err
					}
					if want := "server sees " + p.addr.String(); have != want {
						return fmt.Errorf("%q instead of %q", have, want)
					}
				}
				return nil
			})
		}
	}
	require.NoError(t, g.Wait())
}

// TestMoreConnectionsThanEnvoyAllowsByDefault holds more at once than Envoy's default circuit breaker has.
func TestMoreConnectionsThanEnvoyAllowsByDefault(t *testing.T) {
	served := map[*pod]bool{}
	for _, way := range everyWay(t) {
		if !served[way.to] {
			served[way.to] = true
			way.to.greet(7000)
		}
		var open []*session
		for range 1100 {
			open = append(open, way.from.session(way.address.String()))
		}
		for _, s := range open {
			s.alive()
			_ = s.c.Close()
		}
	}
}

// TestUpgrade carries HTTP with an upgrade, as WebSockets use.
func TestUpgrade(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.workload(8080)
	l := server.listen(8080)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	}), ReadHeaderTimeout: patience}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	c, err := client.dial(server.at(8080).String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	for range 3 {
		_, err = io.WriteString(c, "ping\n")
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ping\n", line)
	}
}

// session is a connection that stays open while something happens.
type session struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func (p *pod) session(to string) *session {
	p.mesh.t.Helper()
	return sessionIn(p.mesh.t, p.ns.Do, to)
}

func sessionIn(t testing.TB, do func(func() error) error, to string) *session {
	t.Helper()
	c, err := dialIn(do, to)
	require.NoError(t, err)
	s := greeted(t, c)
	require.NotNil(t, s, "%s is refused", to)
	s.alive()
	return s
}

// opens is session, if it isn't refused.
func (p *pod) opens(to string) *session {
	c, err := p.dial(to)
	if err != nil {
		return nil
	}
	return greeted(p.mesh.t, c)
}

// greeted is a connection over which a greeting comes.
func greeted(t testing.TB, c net.Conn) *session {
	t.Cleanup(func() { _ = c.Close() })
	s := &session{t, c, bufio.NewReader(c)}
	if _, err := s.r.ReadString('\n'); err != nil {
		return nil
	}
	return s
}

// ends waits until the other side has closed the connection.
func (s *session) ends() {
	s.t.Helper()
	require.NoError(s.t, s.c.SetDeadline(time.Now().Add(patience)))
	_, err := s.r.ReadByte()
	require.Error(s.t, err)
	require.NotErrorIs(s.t, err, os.ErrDeadlineExceeded)
}

func (s *session) alive() {
	s.t.Helper()
	require.NoError(s.t, s.c.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(s.c, "x\n")
	require.NoError(s.t, err)
	line, err := s.r.ReadString('\n')
	require.NoError(s.t, err)
	require.Equal(s.t, "x\n", line)
}

// TestChangesLeaveConnectionsAlone changes everything around open connections.
func TestChangesLeaveConnectionsAlone(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	vip := addrPort("10.96.0.9:80")
	port := model.ServicePort{Namespace: "default", Service: "web", Port: 80}
	m.service("web", vip, 8080, server)
	open := client.session(vip.String())

	t.Run("another pod comes", func(t *testing.T) {
		late := m.nodes[1].newMember("late", false)
		late.greet(8080)
		m.service("web", vip, 8080, server, late)
		open.alive()
	})
	t.Run("the service's identities change", func(t *testing.T) {
		m.destination(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: port,
			Identities: []string{
				names.SPIFFEID(trustDomain, "default", "late"), names.SPIFFEID(trustDomain, "default", "more"),
				server.identity,
			},
		})
		client.reaches(t, vip.String())
		open.alive()
	})
	t.Run("certificates are renewed", func(t *testing.T) {
		m.issue(client.identity)
		m.issue(server.identity)
		_, err := client.hello(vip.String())
		require.NoError(t, err)
		open.alive()
	})
	t.Run("the rules are applied again, and other ranges", func(t *testing.T) {
		require.NoError(t, capture.Apply(client.ns, capture.Pod{Proxy: client.node.mark, Ranges: ranges}))
		require.NoError(t, capture.UpdateSets(
			client.ns, capture.Pod{Proxy: client.node.mark, Ranges: []netip.Prefix{podRange}}))
		require.NoError(t, capture.Apply(server.ns, capture.Pod{Proxy: server.node.mark, Ranges: ranges}))
		open.alive()
		require.NoError(t, capture.UpdateSets(client.ns, capture.Pod{Proxy: client.node.mark, Ranges: ranges}))
	})
	t.Run("the endpoint goes from the service", func(t *testing.T) {
		m.endpoints(port)
		client.reachesNoMore(t, vip.String())
		open.alive()
		m.endpoints(port, model.Endpoint{Address: server.at(8080), MTLS: true, Identity: server.identity})
		client.reaches(t, vip.String())
	})
	t.Run("the control plane goes away", func(t *testing.T) {
		for _, n := range m.nodes {
			n.xds.Stop()
		}
		open.alive()
		requireHello(t, client, vip.String(), "server sees "+client.addr.String())
		for _, n := range m.nodes {
			n.serve()
		}
		server.workload(8080)
		client.reaches(t, server.at(8080).String())
		open.alive()
	})
	t.Run("the pods leave the mesh", func(t *testing.T) {
		require.NoError(t, capture.Drain(client.ns, client.node.mark))
		open.alive()
		require.NoError(t, capture.Drain(server.ns, server.node.mark))
		open.alive()
		requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
		require.NoError(t, capture.Remove(client.ns))
		require.NoError(t, capture.Remove(server.ns))
		requireHello(t, client, server.at(8080).String(), "server sees "+client.addr.String())
	})
}
