// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
)

// States of a TCP socket as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpCloseWait   = 8
	tcpListen      = 10
)

// connection is one end of a TCP connection in a namespace.
type connection struct {
	socket        *netlink.Socket
	local, remote netip.AddrPort
}

// EndPlaintext resets the connections to the pod's applications that don't pass the proxy, which are those from before
// it was captured: rules only see new ones. Those that the pod opened itself stay, as do those through the proxy, those
// within the pod, and kubelet's probes.
func EndPlaintext(ns *netns.Namespace, probes []netip.AddrPort) (ended int, err error) {
	err = ns.Do(func() error {
		open, listening, err := sockets()
		if err != nil {
			return err
		}
		for _, c := range pastTheProxy(open, listening, probes) {
			switch err := destroy(c.socket); {
			case err == nil:
				ended++
			case errors.Is(err, unix.ENOENT): // it ended by itself
			default:
				return fmt.Errorf("reset the connection of %s to port %d (needs a kernel with INET_DIAG_DESTROY): %w", c.remote,
					c.local.Port(), err)
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("end connections in plaintext in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// pastTheProxy picks the connections to an application whose other end is not in the same namespace: the proxy connects
// to the application from within.
func pastTheProxy(open []connection, listening map[uint16]bool, probes []netip.AddrPort) []connection {
	within := map[netip.AddrPort]bool{}
	for _, c := range open {
		within[c.local] = true
	}
	proxy := []uint16{names.PortOutbound, names.PortInbound, names.PortMTLS}
	kubelet := []netip.Addr{netip.MustParseAddr(names.ProbeSourceAddress), netip.MustParseAddr(names.ProbeSourceAddress6)}
	return slices.DeleteFunc(slices.Clone(open), func(c connection) bool {
		return !listening[c.local.Port()] || slices.Contains(proxy, c.local.Port()) ||
			within[c.remote] || c.remote.Addr().IsLoopback() ||
			slices.Contains(kubelet, c.remote.Addr()) && slices.Contains(probes, c.local)
	})
}

// sockets of the current thread's namespace: open connections, and ports that are listened on.
func sockets() (open []connection, listening map[uint16]bool, err error) {
	listening = map[uint16]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, nil, fmt.Errorf("list TCP sockets: %w", err)
		}
		for _, s := range list {
			local, ok1 := netip.AddrFromSlice(s.ID.Source)
			remote, ok2 := netip.AddrFromSlice(s.ID.Destination)
			if !ok1 || !ok2 {
				continue
			}
			switch s.State {
			case tcpListen:
				listening[s.ID.SourcePort] = true
			case tcpEstablished, tcpFinWait1, tcpCloseWait:
				open = append(open, connection{
					s, netip.AddrPortFrom(local.Unmap(), s.ID.SourcePort), netip.AddrPortFrom(remote.Unmap(), s.ID.DestinationPort),
				})
			}
		}
	}
	return open, listening, nil
}

// destroy is: ss --kill. The library's own function does no IPv6.
func destroy(s *netlink.Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddRawData(diagRequest(s))
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// diagRequest is the kernel's struct inet_diag_req_v2 that names a socket.
func diagRequest(s *netlink.Socket) []byte {
	const addressLength = 16
	b := []byte{s.Family, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, 0) // states
	b = binary.BigEndian.AppendUint16(b, s.ID.SourcePort)
	b = binary.BigEndian.AppendUint16(b, s.ID.DestinationPort)
	for _, ip := range [][]byte{s.ID.Source, s.ID.Destination} {
		if s.Family == unix.AF_INET && len(ip) == addressLength {
			ip = ip[addressLength-4:]
		}
		b = append(append(b, ip...), make([]byte, addressLength-len(ip))...)
	}
	b = binary.NativeEndian.AppendUint32(b, s.ID.Interface)
	for _, c := range s.ID.Cookie {
		b = binary.NativeEndian.AppendUint32(b, c)
	}
	return b
}
