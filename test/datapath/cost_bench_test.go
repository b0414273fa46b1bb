// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
)

// Ports of the servers of BenchmarkCost: one sends back what comes, the other one throws it away.
const (
	portEcho = 8080
	portSink = 5201
)

// pair is what BenchmarkCost compares: a client, a server, and the proxies between them.
type pair struct {
	name           string
	client, server *pod
	proxies        []*proxy
}

const (
	rounds    = 5
	roundTime = time.Second
)

// BenchmarkCost is the CPU of both proxies, with what the kernel does for them, for a unit of work, beside the least
// that stock Envoys need (floor): in turn, medians of several rounds.
func BenchmarkCost(b *testing.B) {
	fairway, bare := pairs(b)
	for _, row := range []struct {
		name, unit string
		// units of work that were done until a time.
		units func(p pair, until time.Time) (float64, error)
	}{
		{"1 kept connection", "request", kept(1)},
		{"64 kept connections", "request", kept(64)},
		{"new connections, 16 at a time", "connection", opened(16)},
		{"one stream", "Gbit", streamed},
	} {
		b.Run(row.name, func(b *testing.B) { inTurn(b, row.unit, row.units, fairway, bare) })
	}
	for _, p := range []pair{fairway, bare} {
		for _, proxy := range p.proxies {
			b.Logf("%s: %s", p.name, proxy.memory())
		}
	}
}

// inTurn measures what a pair uses for units of work that are done until a time, and compares it with others.
func inTurn(
	b *testing.B, unit string, units func(p pair, until time.Time) (float64, error), what pair, with ...pair,
) {
	cost, rate := map[string][]float64{}, map[string][]float64{}
	all := append([]pair{what}, with...)
	for range rounds {
		for _, p := range all {
			before, start := p.cpu(), time.Now()
			done, err := units(p, start.Add(roundTime))
			require.NoError(b, err)
			cost[p.name] = append(cost[p.name], float64((p.cpu()-before).Microseconds())/done)
			rate[p.name] = append(rate[p.name], done/time.Since(start).Seconds())
		}
	}
	for _, p := range all {
		b.ReportMetric(median(cost[p.name]), p.name+"-cpu-µs/"+unit)
		b.ReportMetric(median(rate[p.name]), p.name+"-"+unit+"s/s")
	}
	for _, p := range with {
		b.ReportMetric(median(cost[what.name])/median(cost[p.name]), what.name+"/"+p.name)
	}
	b.ReportMetric(0, "ns/op")
}

// manyPorts has pods not run out of ports in any round.
func manyPorts(b *testing.B, pods ...*pod) {
	for _, p := range pods {
		netnstest.Sysctl(b, p.ns, "net/ipv4/tcp_tw_reuse", "1")
		netnstest.Sysctl(b, p.ns, "net/ipv4/ip_local_port_range", "16000 65000")
	}
}

// pairs are one in the mesh and one outside, on the same two nodes.
func pairs(b *testing.B) (fairway, bare pair) {
	m := newMesh(b)
	fairway = pair{"fairway", m.nodes[0].newMember("client", false), m.nodes[1].newMember("server", false), nil}
	for _, n := range m.nodes {
		fairway.proxies = append(fairway.proxies, n.proxy)
	}
	bare = pair{"floor", m.nodes[0].newPod("floor-client"), m.nodes[1].newPod("floor-server"), nil}
	bare.proxies = floor(b, bare.client, bare.server, portEcho, portSink)
	for _, port := range []uint16{portEcho, portSink} {
		fairway.server.workload(port)
	}
	for _, p := range []pair{fairway, bare} {
		manyPorts(b, p.client, p.server)
		p.server.echo(portEcho)
		netnstest.Serve(b, p.server.ns, fmt.Sprintf(":%d", portSink), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		eventually.NoError(b, p.name+" leads to the server", func() error {
			c, err := p.client.dial(p.server.at(portEcho).String())
			if err != nil {
				return err
			}
			defer c.Close()
			return exchange(c, make([]byte, 1))
		})
	}
	return fairway, bare
}

// BenchmarkMemory is what a node's proxy has of memory that serves nobody yet, and once so many addresses of Services
// are in use.
func BenchmarkMemory(b *testing.B) {
	const addresses = 500
	m := newMesh(b)
	client, server := m.nodes[0].newMember("client", false), m.nodes[1].newMember("server", false)
	server.greet(8080)
	b.Logf("at rest: %s", m.nodes[0].proxy.memory())
	for n := range addresses {
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(1 + n>>8), byte(n)}), 80)
		m.service(fmt.Sprintf("s%d", n), vip, 8080, server)
		eventually.NoError(b, "the Service is reached", func() error { _, err := client.hello(vip.String()); return err })
	}
	b.Logf("with %d addresses: %s", addresses, m.nodes[0].proxy.memory())
	b.ReportMetric(0, "ns/op")
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

// cpu that the proxies have used.
func (p pair) cpu() (used time.Duration) {
	for _, proxy := range p.proxies {
		used += proxy.cpu()
	}
	return used
}

// cpu that the proxy has used, with what the kernel does for it. The scheduler's own account has no grains.
func (p *proxy) cpu() (used time.Duration) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		require.NoError(p.t, err)
		ran, err := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
		require.NoError(p.t, err)
		used += time.Duration(ran)
	}
	return used
}

// kept sends 1 KiB there and back on so many open connections until a time, and counts.
func kept(parallel int) func(p pair, until time.Time) (float64, error) {
	return func(p pair, until time.Time) (float64, error) {
		return each(parallel, func() (n int64, err error) {
			c, err := p.client.dial(p.server.at(portEcho).String())
			if err != nil {
				return 0, err
			}
			defer c.Close()
			for buf := make([]byte, 1024); time.Now().Before(until); n++ {
				if err := exchange(c, buf); err != nil {
					return n, err
				}
			}
			return n, nil
		})
	}
}

// opened opens connections, so many at a time, sends 1 KiB there and back on each, and closes it.
func opened(parallel int) func(p pair, until time.Time) (float64, error) {
	return func(p pair, until time.Time) (float64, error) {
		return each(parallel, func() (n int64, err error) {
			for buf := make([]byte, 1024); time.Now().Before(until); n++ {
				c, err := p.client.dial(p.server.at(portEcho).String())
				if err != nil {
					return n, err
				}
				err = exchange(c, buf)
				_ = c.Close()
				if err != nil {
					return n, err
				}
			}
			return n, nil
		})
	}
}

// each runs so many at once and adds up what they count.
func each(parallel int, work func() (int64, error)) (float64, error) {
	var all sync.WaitGroup
	var sum atomic.Int64
	failed := make(chan error, parallel)
	for range parallel {
		all.Go(func() {
			n, err := work()
			sum.Add(n)
			if err != nil {
				failed <- err
			}
		})
	}
	all.Wait()
	close(failed)
	return float64(sum.Load()), <-failed
}

// streamed sends as much as one connection carries until a time, and waits until the server has it.
func streamed(p pair, until time.Time) (float64, error) {
	c, err := p.client.dial(p.server.at(portSink).String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf, sent := make([]byte, 128<<10), 0
	for time.Now().Before(until) {
		n, err := c.Write(buf)
		if err != nil {
			return 0, err
		}
		sent += n
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, c) // its end
	return float64(sent) * 8 / 1e9, err
}

// memory is what is resident: the proxy's own, and the pages of its binary that it has looked at, which all Envoys of a
// node have in common and the kernel takes back when it is short of memory.
func (p *proxy) memory() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	var out []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "RssFile") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}
