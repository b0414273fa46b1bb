// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// world is a pod whose node has, beside a member of the mesh, everything that is outside: some host, and a resolver.
type world struct {
	t         *testing.T
	pod, node *netns.Namespace
}

// closedPod is testPod, closed.
func closedPod() Pod {
	p := testPod
	p.Closed = true
	p.Resolvers = []netip.Addr{netip.MustParseAddr("169.254.20.10"), netip.MustParseAddr("2001:db8::53")}
	return p
}

// At each IP version: the pod's address, one of the mesh's ranges, one that is outside, and the resolver's.
var (
	podAt      = []string{"10.244.0.3", "fd00:244::3"}
	loopbackAt = []string{"127.0.0.1", "::1"}
	memberAt   = []string{"10.244.0.1", "fd00:244::1"}
	outsideAt  = []string{"192.0.2.7", "2001:db8::7"}
	resolverAt = []string{"169.254.20.10", "2001:db8::53"}
)

func newWorld(t *testing.T) *world {
	t.Helper()
	pod, node := netnstest.Linked(t, []string{"10.244.0.3/24", "fd00:244::3/64"}, []string{
		"10.244.0.1/24", "fd00:244::1/64", "192.0.2.7/32", "2001:db8::7/128", "169.254.20.10/32", "2001:db8::53/128",
		"fe80::1/64",
	})
	netnstest.Route(t, pod, "eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.244.0.1"))
	netnstest.Route(t, pod, "eth0", netip.MustParsePrefix("::/0"), netip.MustParseAddr("fe80::1"))
	for _, port := range []int{53, 80} {
		netnstest.Echo(t, node, fmt.Sprintf(":%d", port))
		echoUDP(t, node, port, slices.Concat(memberAt, outsideAt, resolverAt)...)
	}
	netnstest.Echo(t, pod, fmt.Sprintf(":%d", names.PortOutbound))
	netnstest.Echo(t, pod, fmt.Sprintf(":%d", names.PortInbound))
	netnstest.Echo(t, pod, ":8080")
	echoUDP(t, pod, 8080, slices.Concat(podAt, loopbackAt)...)
	return &world{t: t, pod: pod, node: node}
}

// echoUDP serves each of the addresses by itself, so that answers come from where they were asked for.
func echoUDP(t *testing.T, ns *netns.Namespace, port int, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var conn net.PacketConn
		require.NoError(t, ns.Do(func() (err error) { conn, err = net.ListenPacket("udp", at(a, port)); return err }))
		t.Cleanup(func() { _ = conn.Close() })
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(b[:n], from)
			}
		}()
	}
}

// try says a word to an address, and hears it back.
func try(ns *netns.Namespace, network, to string) error {
	return ns.Do(func() error {
		c, err := net.DialTimeout(network, to, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		return exchange(c)
	})
}

func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// ping sends an echo request.
func ping(ns *netns.Namespace, to netip.Addr) error {
	network, kind := "ip4:icmp", byte(8)
	if to.Is6() {
		network, kind = "ip6:ipv6-icmp", 128
	}
	return ns.Do(func() error {
		c, err := net.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte{kind, 0, 0xf7, 0xff, 0, 0, 0, 0})
		return err
	})
}

func at(address string, port int) string { return net.JoinHostPort(address, fmt.Sprint(port)) }

// requireRefused: it is heard at once.
func requireRefused(t *testing.T, err error, of string) {
	t.Helper()
	require.Error(t, err, of)
	heard := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ECONNRESET)
	require.True(t, heard, "%s: %v", of, err)
}

func (w *world) refused() uint64 {
	w.t.Helper()
	r, err := ReadRefused(w.pod)
	require.NoError(w.t, err)
	return r.Outbound
}

// TestOutbound has a pod that is open, closed, and open again.
func TestOutbound(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, Apply(w.pod, testPod))
	reaches := func(outside bool) {
		t.Helper()
		before := w.refused()
		for i, address := range outsideAt {
			attempts := map[string]error{
				"TCP":                     try(w.pod, "tcp", at(address, 80)),
				"UDP":                     try(w.pod, "udp", at(address, 80)),
				"ICMP":                    ping(w.pod, netip.MustParseAddr(address)),
				"TCP to its port of DNS":  try(w.pod, "tcp", at(address, 53)),
				"UDP to its port of DNS":  try(w.pod, "udp", at(address, 53)),
				"the resolver's other":    try(w.pod, "tcp", at(resolverAt[i], 80)),
				"the resolver's over UDP": try(w.pod, "udp", at(resolverAt[i], 80)),
			}
			for of, err := range attempts {
				if outside {
					require.NoError(t, err, "%s: %s", address, of)
				} else {
					requireRefused(t, err, address+": "+of)
				}
			}
			if !outside {
				before += uint64(len(attempts))
			}
			for _, network := range []string{"tcp", "udp"} {
				require.NoError(t, try(w.pod, network, at(memberAt[i], 80)), "the mesh, over %s", network)
				require.NoError(t, try(w.pod, network, at(loopbackAt[i], 8080)), "loopback, over %s", network)
				require.NoError(t, try(w.pod, network, at(podAt[i], 8080)), "itself, over %s", network)
			}
		}
		require.GreaterOrEqual(t, w.refused(), before)
	}
	reaches(true)
	require.Zero(t, w.refused())

	closed := closedPod()
	drift, err := Verify(w.pod, closed)
	require.NoError(t, err)
	require.NotEmpty(t, drift)
	require.NoError(t, UpdateSets(w.pod, closed))
	drift, err = Verify(w.pod, closed)
	require.NoError(t, err)
	require.Empty(t, drift)
	reaches(false)
	for _, address := range resolverAt {
		for _, network := range []string{"tcp", "udp"} {
			require.NoError(t, try(w.pod, network, at(address, 53)), "%s over %s", address, network)
		}
	}
	dialled, err := Dialled(w.pod)
	require.NoError(t, err)
	require.Len(t, dialled, len(families), "what is noted of the pod stays: %v", dialled)

	require.NoError(t, UpdateSets(w.pod, testPod))
	reaches(true)
}

// TestAnswersOfAClosedPod: it may answer whoever comes from outside.
func TestAnswersOfAClosedPod(t *testing.T) {
	w := newWorld(t)
	for _, a := range []string{names.ProbeSourceAddress + "/32", names.ProbeSourceAddress6 + "/128"} {
		netnstest.Address(t, w.node, "eth0", netip.MustParsePrefix(a))
	}
	closed := closedPod()
	closed.Probes = []netip.AddrPort{
		netip.MustParseAddrPort("10.244.0.3:8080"), netip.MustParseAddrPort("[fd00:244::3]:8080"),
	}
	require.NoError(t, Apply(w.pod, closed))
	kubelet := []string{names.ProbeSourceAddress, names.ProbeSourceAddress6}
	for i, pod := range podAt {
		for _, from := range []string{outsideAt[i], kubelet[i]} {
			for _, network := range []string{"tcp", "udp"} {
				require.NoError(t, w.node.Do(func() error {
					d := net.Dialer{Timeout: 5 * time.Second}
					if a := net.ParseIP(from); network == "tcp" {
						d.LocalAddr = &net.TCPAddr{IP: a}
					} else {
						d.LocalAddr = &net.UDPAddr{IP: a}
					}
					c, err := d.Dial(network, at(pod, 8080))
					if err != nil {
						return err
					}
					defer c.Close()
					return exchange(c)
				}), "%s from %s", network, from)
			}
		}
		err := w.node.Do(func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(outsideAt[i])},
				&net.UDPAddr{IP: net.ParseIP(pod), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			return exchange(c)
		})
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "errors that answer leave, too")
	}
	require.Zero(t, w.refused())
}

// TestOnlyTheProxyLeavesAClosedPod: it makes the connections that a Service leads out of the mesh, such as to the API
// server. Nobody passes for it.
func TestOnlyTheProxyLeavesAClosedPod(t *testing.T) {
	w := newWorld(t)
	says(t, w.node, ":81", "outside")
	require.NoError(t, Apply(w.pod, closedPod()))
	for _, address := range outsideAt {
		word, err := ask(w.pod, at(address, 81), proxied())
		require.NoError(t, err)
		require.Equal(t, "outside", word)
		for name, options := range map[string]map[int]uint32{
			"half":       {unix.SO_MARK: testMark.Mark()},
			"the other":  {unix.SO_PRIORITY: testMark.Priority()},
			"as answers": {unix.SO_MARK: names.MarkReply},
		} {
			_, err := ask(w.pod, at(address, 81), options)
			require.Error(t, err, name)
		}
	}
}

// TestNobodyAheadOpensAClosedPod has an accomplice outside who sends what makes the kernel take a connection of the pod
// for an answer: also from a port that isn't redirected when it is called.
func TestNobodyAheadOpensAClosedPod(t *testing.T) {
	for name, flags := range map[string]byte{
		"SYN": tcpSyn, "ACK": tcpAck, "data": tcpAck | tcpPsh, "SYN-ACK": tcpSyn | tcpAck, "FIN": tcpFin | tcpAck,
		"RST": tcpRst,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			says(t, w.node, ":81", "outside")
			require.NoError(t, Apply(w.pod, closedPod()))
			for i, pod := range podAt {
				for _, port := range []uint16{40_001, names.PortMTLS} {
					there := netip.MustParseAddrPort(at(outsideAt[i], 81))
					here := netip.AddrPortFrom(netip.MustParseAddr(pod), port)
					sendTCP(t, w.node, there, here, flags)
					_, err := askFrom(w.pod, here, there)
					require.ErrorIs(t, err, syscall.ECONNREFUSED, "from port %d", port)
				}
			}
		})
	}
}

// TestContainersWithinAClosedPod are behind interfaces of the pod's own.
func TestContainersWithinAClosedPod(t *testing.T) {
	w := newWorld(t)
	inner := netnstest.New(t, "inner")
	netnstest.Link(t, w.pod, "inner", inner, "eth0")
	for _, a := range []string{"10.244.9.1/24", "fd00:244:0:9::1/64"} {
		netnstest.Address(t, w.pod, "inner", netip.MustParsePrefix(a))
	}
	for _, a := range []string{"10.244.9.2/24", "fd00:244:0:9::2/64"} {
		netnstest.Address(t, inner, "eth0", netip.MustParsePrefix(a))
	}
	netnstest.Route(t, inner, "eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.244.9.1"))
	netnstest.Route(t, inner, "eth0", netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:244:0:9::1"))
	netnstest.Route(t, w.node, "eth0", netip.MustParsePrefix("10.244.9.0/24"), netip.MustParseAddr("10.244.0.3"))
	netnstest.Route(t, w.node, "eth0", netip.MustParsePrefix("fd00:244:0:9::/64"), netip.MustParseAddr("fd00:244::3"))
	netnstest.Sysctl(t, w.pod, "net/ipv4/ip_forward", "1")
	netnstest.Sysctl(t, w.pod, "net/ipv6/conf/all/forwarding", "1")
	require.NoError(t, Apply(w.pod, testPod))
	for i, address := range outsideAt {
		for _, network := range []string{"tcp", "udp"} {
			require.NoError(t, try(inner, network, at(address, 80)), "open")
			require.NoError(t, UpdateSets(w.pod, closedPod()))
			before := w.refused()
			err := try(inner, network, at(address, 80))
			require.Error(t, err)
			var late net.Error
			require.False(t, errors.As(err, &late) && late.Timeout(), "refused, not silent: %v", err)
			require.Greater(t, w.refused(), before)
			require.NoError(t, try(inner, network, at(memberAt[i], 80)), "the mesh")
			require.NoError(t, try(inner, network, at(resolverAt[i], 53)), "the resolver")
			require.NoError(t, UpdateSets(w.pod, testPod))
		}
	}
}

// TestNeighboursOfAClosedPod: routers and hosts of the link find it, and it finds them, also by addresses that are
// outside of the mesh.
func TestNeighboursOfAClosedPod(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("skipped: needs the ip program to forget neighbours")
	}
	w := newWorld(t)
	netnstest.Route(t, w.pod, "eth0", netip.MustParsePrefix("2001:db8::7/128"), netip.Addr{})
	netnstest.Route(t, w.pod, "eth0", netip.MustParsePrefix("fd00:244:0:7::/64"), netip.MustParseAddr("2001:db8::7"))
	netnstest.Address(t, w.node, "eth0", netip.MustParsePrefix("fd00:244:0:7::7/128"))
	echoUDP(t, w.node, 80, "fd00:244:0:7::7")
	require.NoError(t, Apply(w.pod, closedPod()))
	for _, ns := range []*netns.Namespace{w.pod, w.node} {
		require.NoError(t, ns.Do(func() error { return exec.Command(ip, "-6", "neigh", "flush", "all").Run() }))
	}
	require.NoError(t, try(w.pod, "udp", "[fd00:244:0:7::7]:80"))
	require.NoError(t, w.node.Do(func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP("2001:db8::7")},
			&net.UDPAddr{IP: net.ParseIP("fd00:244::3"), Port: 8080})
		if err != nil {
			return err
		}
		defer c.Close()
		return exchange(c)
	}))
}

// TestEndOutbound: what a pod opened to outside before it is closed ends on both sides, and nothing else.
func TestEndOutbound(t *testing.T) {
	w := newWorld(t)
	ended := map[string]opened{
		"IPv4": open(t, w.pod, "", "192.0.2.7:80"), "IPv6": open(t, w.pod, "", "[2001:db8::7]:80"),
		"the resolver's other port": open(t, w.pod, "", "169.254.20.10:80"),
	}
	stay := map[string]opened{
		"to the mesh": open(t, w.pod, "", "10.244.0.1:80"), "over loopback": open(t, w.pod, "", "127.0.0.1:8080"),
		"to a resolver": open(t, w.pod, "", "169.254.20.10:53"),
		"from outside":  open(t, w.node, "192.0.2.7:0", "10.244.0.3:8080"), "within": open(t, w.pod, "", "10.244.0.3:8080"),
	}
	var proxy net.Conn
	require.NoError(t, w.pod.Do(func() (err error) {
		proxy, err = (&net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var set error
			return errors.Join(c.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(testMark.Mark()))
			}), set)
		}}).Dial("tcp", "192.0.2.7:80")
		return err
	}))
	defer proxy.Close()
	var udp net.Conn
	require.NoError(t, w.pod.Do(func() (err error) { udp, err = net.Dial("udp", "192.0.2.7:80"); return err }))
	defer udp.Close()
	require.NoError(t, exchange(udp))

	n, err := EndOutbound(w.pod, closedPod())
	require.NoError(t, err)
	require.Equal(t, len(ended)+1, n)
	for name, c := range ended {
		err := c.say()
		require.Error(t, err, name)
		var late net.Error
		require.False(t, errors.As(err, &late) && late.Timeout(), "%s: reset, not silent", name)
	}
	_, err = udp.Write([]byte("x"))
	require.Error(t, err, "UDP")
	for name, c := range stay {
		require.NoError(t, c.say(), name)
	}
	require.NoError(t, exchange(proxy), "the proxy's own")
	n, err = EndOutbound(w.pod, closedPod())
	require.NoError(t, err)
	require.Zero(t, n, "a second time")
}

// TestClosedEndsBothSides: a connection that only listens to the outside ends there, too, although the pod is closed
// already.
func TestClosedEndsBothSides(t *testing.T) {
	w := newWorld(t)
	for _, address := range outsideAt {
		var there net.Conn
		accepted := make(chan net.Conn, 1)
		netnstest.Serve(t, w.node, at(address, 82), func(c net.Conn) {
			accepted <- c
			_, _ = c.Read(make([]byte, 1))
			accepted <- nil
		})
		var here net.Conn
		require.NoError(t, w.pod.Do(func() (err error) { here, err = net.Dial("tcp", at(address, 82)); return err }))
		defer here.Close()
		there = <-accepted
		require.NoError(t, Apply(w.pod, closedPod()))
		n, err := EndOutbound(w.pod, closedPod())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		select {
		case <-accepted:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s hears nothing of the end", there.RemoteAddr())
		}
		_, err = here.Read(make([]byte, 1))
		require.Error(t, err)
		require.NoError(t, Remove(w.pod))
	}
}
