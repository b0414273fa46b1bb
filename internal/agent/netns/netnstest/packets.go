// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netnstest

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// OnlyRaw leaves the thread CAP_NET_RAW, which a container has by default, and no other capability. The thread must be
// one that ends soon, such as that of Namespace.Do.
func OnlyRaw() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_RAW, Permitted: 1 << unix.CAP_NET_RAW}}
	return unix.Capset(&header, &data[0])
}

// Packet is what a packet socket sees of a TCP packet.
type Packet struct {
	Source, Destination uint16
	// Mark and Priority are what the kernel tells of the packet (SO_RCVMARK and, from Linux 6.14 on, SO_RCVPRIORITY).
	Mark, Priority uint32
}

// Watch opens a packet socket, as a process in the namespace may that has CAP_NET_RAW. What it returns gives the TCP
// packets that were seen since the last call.
func Watch(t testing.TB, ns *netns.Namespace) func() []Packet {
	t.Helper()
	var fd int
	require.NoError(t, ns.Do(func() (err error) {
		if err := OnlyRaw(); err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVPRIORITY, 1)
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1)
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func() []Packet {
		t.Helper()
		var out []Packet
		for {
			data, control := make([]byte, 128), make([]byte, 256)
			n, cn, _, _, err := unix.Recvmsg(fd, data, control, 0)
			if errors.Is(err, unix.EAGAIN) {
				return out
			}
			require.NoError(t, err)
			if p, ok := parse(t, data[:n], control[:cn]); ok {
				out = append(out, p)
			}
		}
	}
}

func parse(t testing.TB, data, control []byte) (p Packet, ok bool) {
	t.Helper()
	const ipv6, ports = 40, 4
	switch n := len(data); {
	case n > ipv6 && data[0]>>4 == 4 && data[9] == unix.IPPROTO_TCP:
		const words = 4
		data = data[int(data[0]&0xf)*words:]
	case n > ipv6+ports && data[0]>>4 == 6 && data[6] == unix.IPPROTO_TCP:
		data = data[ipv6:]
	default:
		return p, false
	}
	p.Source, p.Destination = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	messages, err := unix.ParseSocketControlMessage(control)
	require.NoError(t, err)
	told := false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.SO_MARK:
			p.Mark, told = binary.NativeEndian.Uint32(m.Data), true
		case unix.SO_PRIORITY:
			p.Priority = binary.NativeEndian.Uint32(m.Data)
		}
	}
	require.True(t, told, "the kernel tells the mark")
	return p, true
}
