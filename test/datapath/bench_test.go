// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// routes are the ways that benchmarks compare; the first one has no proxy in it.
func routes(b *testing.B, each func(b *testing.B, m *mesh, from *pod, to netip.AddrPort)) {
	m := newMesh(b)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.workload(8080)
	plain, outsider := m.nodes[1].newPod("plain"), m.nodes[0].newPod("outsider")
	m.service("plain", addrPort("10.96.0.10:8080"), 8080, plain)
	for _, p := range []*pod{server, plain} {
		p.echo(8080)
	}
	for _, r := range []struct {
		name string
		from *pod
		to   netip.AddrPort
	}{
		{"direct", outsider, plain.at(8080)},
		{"mTLS", client, server.at(8080)},
		{"plaintext-out", client, addrPort("10.96.0.10:8080")},
		{"plaintext-in", outsider, server.at(8080)},
	} {
		b.Run(r.name, func(b *testing.B) { each(b, m, r.from, r.to) })
	}
	for _, n := range m.nodes {
		b.Logf("%s: proxy's resident memory %d KiB", n.name, n.proxy.resident())
	}
}

// echo serves a port and sends everything back.
func (p *pod) echo(port uint16) { netnstest.Echo(p.mesh.t, p.ns, fmt.Sprintf(":%d", port)) }

var rss = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

func (p *proxy) resident() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	n, _ := strconv.Atoi(string(rss.FindSubmatch(b)[1]))
	return n
}

func exchange(c net.Conn, buf []byte) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf)
	return err
}

// BenchmarkExchange sends 1 KiB there and back on an open connection.
func BenchmarkExchange(b *testing.B) {
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d connections", parallel), func(b *testing.B) {
			routes(b, func(b *testing.B, _ *mesh, from *pod, to netip.AddrPort) {
				b.SetParallelism(max(1, parallel/2)) // GOMAXPROCS times
				if parallel == 1 {
					c, err := from.dial(to.String())
					require.NoError(b, err)
					defer c.Close()
					buf := make([]byte, 1024)
					require.NoError(b, exchange(c, buf))
					for b.Loop() {
						require.NoError(b, exchange(c, buf))
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					c, err := from.dial(to.String())
					if err != nil {
						b.Error(err)
						return
					}
					defer c.Close()
					buf := make([]byte, 1024)
					for pb.Next() {
						if err := exchange(c, buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		})
	}
}

// BenchmarkConnect opens a connection, sends 1 KiB there and back, and closes it, 16 at a time.
func BenchmarkConnect(b *testing.B) {
	routes(b, func(b *testing.B, _ *mesh, from *pod, to netip.AddrPort) { connect(b, from, to) })
}

func connect(b *testing.B, from *pod, to netip.AddrPort) {
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 1024)
		for pb.Next() {
			c, err := from.dial(to.String())
			if err != nil {
				b.Error(err)
				return
			}
			err = exchange(c, buf)
			_ = c.SetLinger(0) // no TIME_WAIT: the benchmark would run out of ports
			_ = c.Close()
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// cpu that both ends and both proxies have used, with what the kernel does for them.
func (m *mesh) cpu() (used time.Duration) {
	const tick = time.Second / 100
	pids := []int{os.Getpid()}
	for _, n := range m.nodes {
		pids = append(pids, n.proxy.cmd.Process.Pid)
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		require.NoError(m.t, err)
		_, after, _ := strings.Cut(string(b), ") ")
		for _, f := range strings.Fields(after)[11:13] { // utime, stime
			n, err := strconv.Atoi(f)
			require.NoError(m.t, err)
			used += time.Duration(n) * tick
		}
	}
	return used
}

// BenchmarkPeers is BenchmarkConnect over mTLS from a client that has connections open to the server already, with and
// without a limit of them. Each server counts from before the first one: a change of the limit would count anew.
func BenchmarkPeers(b *testing.B) {
	m := newMesh(b)
	client := m.nodes[0].newMember("client", false)
	limits := []uint32{0, uint32(v1alpha1.DefaultConnectionsPerPeer)}
	var servers []*pod
	for _, limit := range limits {
		server := m.nodes[1].newMember(fmt.Sprintf("limit-%d", limit), false)
		server.workload(8080)
		server.echo(8080)
		server.capture(limit)
		servers = append(servers, server)
	}
	held := 0
	for _, open := range []int{0, 1_000, 1_900} {
		for ; held < open; held++ {
			for _, server := range servers {
				c, err := client.dial(server.at(8080).String())
				require.NoError(b, err)
				b.Cleanup(func() { _ = c.Close() })
				require.NoError(b, exchange(c, make([]byte, 1)))
			}
		}
		for _, server := range servers {
			b.Run(fmt.Sprintf("%d open, %s", open, server.name), func(b *testing.B) {
				before := m.cpu()
				connect(b, client, server.at(8080))
				b.ReportMetric(float64((m.cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// BenchmarkStream sends and gets back as much as one connection carries.
func BenchmarkStream(b *testing.B) {
	routes(b, func(b *testing.B, _ *mesh, from *pod, to netip.AddrPort) {
		c, err := from.dial(to.String())
		require.NoError(b, err)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 1<<20)
		b.SetBytes(int64(len(buf)))
		done := make(chan error, 1)
		b.ResetTimer()
		go func() {
			for range b.N {
				if _, err := c.Write(buf); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		back := make([]byte, 1<<20)
		for range b.N {
			_, err := io.ReadFull(c, back)
			require.NoError(b, err)
		}
		require.NoError(b, <-done)
	})
}

// BenchmarkFirstConnection dials an address that the node's proxy has never seen: cluster, endpoints and all are
// fetched.
func BenchmarkFirstConnection(b *testing.B) {
	m := newMesh(b)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	i := 0
	for b.Loop() {
		b.StopTimer()
		i++
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(1 + i>>8), byte(i)}), 80)
		m.service(fmt.Sprintf("s%d", i), vip, 8080, server)
		b.StartTimer()
		for {
			if _, err := client.hello(vip.String()); err == nil {
				break
			}
		}
	}
}
