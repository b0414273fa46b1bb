// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestOnlyTheNodeProbes has another machine, and another pod, that send with the source address of the node's probes.
// Nobody listens on the capture ports, so what is captured is refused.
func TestOnlyTheNodeProbes(t *testing.T) {
	for name, c := range map[string]struct {
		probe, all                        string
		pod, podGateway, outside, gateway netip.Prefix
	}{
		"IPv4": {
			names.ProbeSourceAddress + "/32", "0.0.0.0/0", netip.MustParsePrefix("10.244.0.3/24"),
			netip.MustParsePrefix("10.244.0.1/24"),
			netip.MustParsePrefix("192.168.100.2/24"), netip.MustParsePrefix("192.168.100.1/24"),
		},
		"IPv6": {
			names.ProbeSourceAddress6 + "/128", "::/0", netip.MustParsePrefix("fd00:244::3/64"),
			netip.MustParsePrefix("fd00:244::1/64"),
			netip.MustParsePrefix("fd00:100::2/64"), netip.MustParsePrefix("fd00:100::1/64"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod, host, outside := netnstest.New(t, "pod"), netnstest.New(t, "host"), netnstest.New(t, "outside")
			netnstest.Sysctl(t, host, "net/ipv4/ip_forward", "1")
			netnstest.Sysctl(t, host, "net/ipv6/conf/all/forwarding", "1")
			netnstest.Link(t, pod, "eth0", host, "veth")
			netnstest.Link(t, outside, "eth0", host, "uplink")
			netnstest.Address(t, pod, "eth0", c.pod)
			netnstest.Address(t, host, "veth", c.podGateway)
			netnstest.Address(t, outside, "eth0", c.outside)
			netnstest.Address(t, host, "uplink", c.gateway)
			netnstest.Route(t, pod, "eth0", netip.MustParsePrefix(c.all), c.podGateway.Addr())
			netnstest.Route(t, outside, "eth0", netip.MustParsePrefix(c.all), c.gateway.Addr())
			probe := netip.MustParsePrefix(c.probe)
			netnstest.Address(t, outside, "eth0", probe)
			netnstest.Route(t, host, "uplink", probe, c.outside.Addr())

			probed, other := netip.AddrPortFrom(c.pod.Addr(), 8080), netip.AddrPortFrom(c.pod.Addr(), 8081)
			netnstest.Echo(t, pod, probed.String())
			netnstest.Echo(t, pod, other.String())
			require.NoError(t, Apply(pod, Pod{Proxy: testMark, Probes: []netip.AddrPort{probed}}))
			forge := func(to netip.AddrPort, patience time.Duration) error {
				return outside.Do(func() error {
					d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(probe.Addr(), 0))}
					conn, err := d.Dial("tcp", to.String())
					if err == nil {
						err = conn.Close()
					}
					return err
				})
			}
			require.NoError(t, forge(probed, 10*time.Second), "a pod can't know by itself where it comes from")
			require.ErrorIs(t, forge(other, 10*time.Second), syscall.ECONNREFUSED,
				"but it lets the probes' source pass to what is probed only")

			require.NoError(t, ApplyHost(host, Host{Probes: []netip.AddrPort{probed}}))
			var late net.Error
			// A dropped packet is seen by nothing but its silence.
			require.ErrorAs(t, forge(probed, 300*time.Millisecond), &late)
			require.True(t, late.Timeout(), "the node drops it")
			open(t, host, "", probed.String())
			require.ErrorIs(t, dialOnce(host, other), syscall.ECONNREFUSED, "the node's own address is no probe's")
		})
	}
}

func dialOnce(ns *netns.Namespace, to netip.AddrPort) error {
	return ns.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}
