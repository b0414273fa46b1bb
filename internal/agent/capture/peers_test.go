// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// crowd is a pod and a namespace with several addresses that calls it.
type crowd struct {
	t         *testing.T
	pod, peer *netns.Namespace
	addr      netip.Addr
}

// withCrowds tests one of each IP family. The proxy of the pod answers at its mTLS and its plaintext port.
func withCrowds(t *testing.T, test func(t *testing.T, c *crowd)) {
	for name, addr := range map[string]string{"IPv4": "10.244.0.3", "IPv6": "fd00:244::3"} {
		t.Run(name, func(t *testing.T) {
			c := &crowd{t: t, pod: netnstest.New(t, "pod"), peer: netnstest.New(t, "peer"), addr: netip.MustParseAddr(addr)}
			netnstest.Link(t, c.pod, "eth0", c.peer, "eth0")
			bits := c.addr.BitLen() - 8
			netnstest.Address(t, c.pod, "eth0", netip.PrefixFrom(c.addr, bits))
			for n := range 4 {
				netnstest.Address(t, c.peer, "eth0", netip.PrefixFrom(c.caller(n), bits))
			}
			for _, port := range []uint16{names.PortMTLS, names.PortInbound} {
				netnstest.Echo(t, c.pod, fmt.Sprintf(":%d", port))
			}
			test(t, c)
		})
	}
}

// caller is one of four addresses.
func (c *crowd) caller(n int) netip.Addr {
	b := c.addr.AsSlice()
	b[len(b)-1] += byte(n + 1)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (c *crowd) dial(caller int, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.caller(caller), 0))}
	var conn net.Conn
	err := c.peer.Do(func() (err error) {
		conn, err = d.Dial("tcp", netip.AddrPortFrom(c.addr, port).String())
		return err
	})
	if err == nil {
		c.t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func (c *crowd) requireServed(caller int, ports ...uint16) (out []net.Conn) {
	c.t.Helper()
	for _, port := range ports {
		conn, err := c.dial(caller, port)
		require.NoError(c.t, err, "%s dials %d", c.caller(caller), port)
		out = append(out, conn)
	}
	return out
}

func (c *crowd) requireRefused(caller int, port uint16) {
	c.t.Helper()
	_, err := c.dial(caller, port)
	require.ErrorIs(c.t, err, syscall.ECONNREFUSED, "%s dials %d", c.caller(caller), port)
}

func (c *crowd) refused() uint64 {
	n, err := ReadRefused(c.pod)
	require.NoError(c.t, err)
	require.Zero(c.t, n.Share)
	return n.Peers
}

// Ports of an application that takes plaintext, and of one that kubelet asks.
const plain, probed = 8080, 9090

// TestAPeerHasItsShareOfConnections: open ones to all ports of the pod together, and never those of another peer.
func TestAPeerHasItsShareOfConnections(t *testing.T) {
	withCrowds(t, func(t *testing.T, c *crowd) {
		pod := testPod
		pod.Peers = 3
		require.NoError(t, Apply(c.pod, pod))
		open := c.requireServed(0, names.PortMTLS, names.PortMTLS, plain)
		c.requireRefused(0, names.PortMTLS)
		c.requireRefused(0, plain)
		require.EqualValues(t, 2, c.refused())
		c.requireServed(1, names.PortMTLS, names.PortMTLS, plain)
		c.requireRefused(1, plain)

		require.NoError(t, UpdateSets(c.pod, pod))
		drift, err := Verify(c.pod, pod)
		require.NoError(t, err)
		require.Empty(t, drift, "what is counted is no change of the rules")
		c.requireRefused(0, names.PortMTLS)

		require.NoError(t, open[0].Close())
		eventually.Passes(t, "a connection in place of the one that has ended", func(look require.TestingT) {
			_, err := c.dial(0, names.PortMTLS)
			require.NoError(look, err, "one has ended")
		})

		pod.Peers = 100
		drift, err = Verify(c.pod, pod)
		require.NoError(t, err)
		require.NotEmpty(t, drift, "more are wanted")
	})
}

// TestKubeletIsNoPeer has a probe among more connections than a peer may have.
func TestKubeletIsNoPeer(t *testing.T) {
	withCrowds(t, func(t *testing.T, c *crowd) {
		pod := testPod
		pod.Peers = 1
		pod.Probes = []netip.AddrPort{netip.AddrPortFrom(c.addr, probed)}
		require.NoError(t, Apply(c.pod, pod))
		netnstest.Echo(t, c.pod, fmt.Sprintf(":%d", probed))
		for _, f := range families {
			if f.has(c.addr) {
				netnstest.Address(t, c.peer, "eth0", netip.PrefixFrom(f.probe, f.probe.BitLen()))
				netnstest.Route(t, c.pod, "eth0", netip.PrefixFrom(f.probe, f.probe.BitLen()), c.caller(0))
				for range 3 {
					open(t, c.peer, netip.AddrPortFrom(f.probe, 0).String(), netip.AddrPortFrom(c.addr, probed).String())
				}
			}
		}
		require.Zero(t, c.refused())
	})
}

// TestAPeerThatBeginsTooMany ends each of its connections at once, so that few are open. It waits for none of them: it
// must be faster than the limit.
func TestAPeerThatBeginsTooMany(t *testing.T) {
	withCrowds(t, func(t *testing.T, c *crowd) {
		pod := testPod
		pod.Peers = 1 << 20
		require.NoError(t, Apply(c.pod, pod))
		require.NoError(t, c.peer.Do(func() error {
			for range 4 * PeerPerSecond {
				if err := begin(c.caller(0), netip.AddrPortFrom(c.addr, names.PortMTLS)); err != nil {
					return err
				}
			}
			return nil
		}))
		require.Positive(t, c.refused())
		c.requireServed(1, names.PortMTLS, plain)
	})
}

// begin a connection and let go of it.
func begin(from netip.Addr, to netip.AddrPort) error {
	address := func(a netip.AddrPort) (int, unix.Sockaddr) {
		if a.Addr().Is4() {
			return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
		}
		return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	family, local := address(netip.AddrPortFrom(from, 0))
	_, remote := address(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Bind(fd, local); err != nil {
		return err
	}
	if err := unix.Connect(fd, remote); err != nil && !errors.Is(err, unix.EINPROGRESS) &&
		!errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return nil
}

// TestPeersWithoutRoom has more peers than are counted by themselves: those that have connections keep what is theirs,
// and all others are one together.
func TestPeersWithoutRoom(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipped: needs the nft program to fill a set")
	}
	withCrowds(t, func(t *testing.T, c *crowd) {
		pod := testPod
		pod.Peers = 3
		require.NoError(t, Apply(c.pod, pod))
		c.requireServed(0, names.PortMTLS)
		set := "peers4"
		other := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)}) }
		if c.addr.Is6() {
			set = "peers6"
			other = func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(n >> 8), 15: byte(n)}) }
		}
		var fill strings.Builder
		for n := range roomForPeers - 1 {
			fmt.Fprintf(&fill, "add element inet fairway %s { %s }\n", set, other(n))
		}
		require.NoError(t, c.pod.Do(func() error {
			cmd := exec.Command(nft, "-f", "-")
			cmd.Stdin = strings.NewReader(fill.String())
			return cmd.Run()
		}))
		c.requireServed(1, names.PortMTLS, names.PortMTLS)
		c.requireServed(2, names.PortMTLS)
		c.requireRefused(1, names.PortMTLS)
		c.requireRefused(2, plain)
		c.requireRefused(3, names.PortMTLS)
		c.requireServed(0, names.PortMTLS, plain)
		c.requireRefused(0, plain)
	})
}

// TestCanLimitPeers has a kernel that can.
func TestCanLimitPeers(t *testing.T) {
	ns := newPod(t)
	require.NoError(t, CanLimitPeers(ns))
	present, err := Present(ns)
	require.NoError(t, err)
	require.False(t, present)
	require.Empty(t, list(t, ns), "nothing stays")
}

// TestRefusedSince has rules that were put back meanwhile, and count anew.
func TestRefusedSince(t *testing.T) {
	before := Refused{Share: 5, Peers: 7}
	require.Equal(t, Refused{Share: 1, Peers: 0}, Refused{Share: 6, Peers: 7}.Since(before))
	require.Equal(t, Refused{Share: 3, Peers: 2}, Refused{Share: 3, Peers: 2}.Since(before))
}
