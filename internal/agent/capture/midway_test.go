// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Flags of TCP.
const (
	tcpFin = 1 << iota
	tcpSyn
	tcpRst
	tcpPsh
	tcpAck
	tcpUrg
)

// TestMidway has a peer whose first packet is one from the middle of a connection, so that the kernel takes it for one
// whose beginning it hasn't seen. What is opened then, by the same ports, passes the proxy by in neither direction.
func TestMidway(t *testing.T) {
	for name, flags := range map[string]byte{
		"ACK": tcpAck, "data": tcpAck | tcpPsh, "FIN": tcpFin | tcpAck, "SYN-ACK": tcpSyn | tcpAck, "RST": tcpRst,
		"RST-ACK": tcpRst | tcpAck, "nothing": 0, "all": 0x3f, "SYN-URG": tcpSyn | tcpUrg,
	} {
		t.Run(name, func(t *testing.T) {
			pod, peer := podAndPeer(t)
			says(t, pod, fmt.Sprintf(":%d", names.PortInbound), "the proxy")
			require.NoError(t, Apply(pod, testPod))
			for podAddr, peerAddr := range map[string]string{"10.244.0.3": "10.244.0.1", "fd00:244::3": "fd00:244::1"} {
				in := func(p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(podAddr), p) }
				of := func(p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(peerAddr), p) }

				sendTCP(t, peer, of(40_000), in(8080), flags)
				word, err := askFrom(peer, of(40_000), in(8080))
				require.NotEqual(t, "the application", word, "%s: %v", peerAddr, err)
				requireCaptured(t, word, err)

				sendTCP(t, peer, of(80), in(40_001), flags)
				word, err = askFrom(pod, in(40_001), of(80))
				require.NotEqual(t, "the peer", word, "%s: %v", podAddr, err)
				requireCaptured(t, word, err)
			}
		})
	}
}

// requireCaptured also takes a reset for an answer: what has begun in a wrong way may end so.
func requireCaptured(t *testing.T, word string, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		require.NoError(t, err)
		require.Equal(t, "the proxy", word)
	}
}

// askFrom a port.
func askFrom(ns *netns.Namespace, from, to netip.AddrPort) (word string, err error) {
	err = ns.Do(func() error {
		word, err = hear(net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}, to.String())
		return err
	})
	return word, err
}

// sendTCP sends a packet that the kernel tracks and doesn't answer: over IPv4 for its signature (RFC 2385), which
// nobody asked for, over IPv6 for an option that tells who doesn't know it to discard the packet.
func sendTCP(t *testing.T, ns *netns.Namespace, from, to netip.AddrPort, flags byte) {
	t.Helper()
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 2) // sequence and acknowledgement numbers
	b = append(b, 10<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	b = append(append(b, 1, 1, 19, 18), make([]byte, 16)...)
	binary.BigEndian.PutUint16(b[16:], checksum(from.Addr(), to.Addr(), b))
	family, option := unix.AF_INET, ""
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(to.Addr().AsSlice()[:4])}
	if to.Addr().Is6() {
		family, option, sa = unix.AF_INET6, "\x00\x00\x4f\x04\x00\x00\x00\x00", &unix.SockaddrInet6{Addr: to.Addr().As16()}
	}
	require.NoError(t, ns.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if option != "" {
			if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, option); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, b, 0, sa)
	}))
}

// checksum of TCP, with the pseudo-header.
func checksum(from, to netip.Addr, segment []byte) uint16 {
	all := append(append(from.AsSlice(), to.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	all = append(all, segment...)
	var sum uint32
	for i := 0; i < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
