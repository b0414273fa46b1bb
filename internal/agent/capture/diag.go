// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of a socket as the kernel numbers them.
const (
	stateEstablished = 1
	stateFinWait1    = 4
	stateTimeWait    = 6
	stateClose       = 7 // of UDP: not connected
	stateCloseWait   = 8
	stateListen      = 10
)

// connection is one end of a connection in a namespace: a socket that has a peer.
type connection struct {
	family, protocol, state byte
	// id is how the kernel names the socket.
	id            []byte
	local, remote netip.AddrPort
	// mark is SO_MARK.
	mark uint32
	// via is what the kernel is asked by; nil: something of its own.
	via map[int]*nl.SocketHandle
}

// Layout of the kernel's struct inet_diag_msg and inet_diag_req_v2, both with a struct inet_diag_sockid in them.
const (
	diagID, diagMessage           = 4, 72
	diagIDLength                  = 48
	diagSource, diagTarget        = 4, 20 // in the ID, behind the ports
	diagCookie                    = 40    // likewise
	diagAttributeMark             = 15    // INET_DIAG_MARK
	diagEveryState         uint32 = 0xffff_ffff
)

// sockets are those of the current thread's namespace over a protocol: with a peer, and the ports of those without.
func sockets(protocol byte) (open []connection, listening map[uint16]bool, err error) {
	listening = map[uint16]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddRawData(diagRequest(family, protocol, diagEveryState, make([]byte, diagIDLength)))
		messages, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
		if err != nil {
			return nil, nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, m := range messages {
			c, err := parseDiag(m, protocol)
			switch {
			case err != nil:
				return nil, nil, err
			case c.state == stateListen || c.state == stateClose && protocol == unix.IPPROTO_UDP:
				listening[c.local.Port()] = true
			case c.state != stateTimeWait && c.state != stateClose:
				open = append(open, c)
			}
		}
	}
	return open, listening, nil
}

func parseDiag(m []byte, protocol byte) (connection, error) {
	if len(m) < diagMessage {
		return connection{}, errors.New("list sockets: the kernel's message is too short")
	}
	id := m[diagID : diagID+diagIDLength]
	c := connection{family: m[0], protocol: protocol, state: m[1], id: id}
	address := func(at int) netip.Addr {
		if c.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(id[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(id[at : at+16])).Unmap()
	}
	c.local = netip.AddrPortFrom(address(diagSource), binary.BigEndian.Uint16(id))
	c.remote = netip.AddrPortFrom(address(diagTarget), binary.BigEndian.Uint16(id[2:]))
	attributes, err := nl.ParseRouteAttr(m[diagMessage:])
	if err != nil {
		return connection{}, fmt.Errorf("list sockets: %w", err)
	}
	for _, a := range attributes {
		if a.Attr.Type == diagAttributeMark && len(a.Value) == 4 {
			c.mark = binary.NativeEndian.Uint32(a.Value)
		}
	}
	return c, nil
}

// destroy is: ss --kill. That the socket is gone already is no error.
func (c connection) destroy() (ended bool, err error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.Sockets = c.via
	req.AddRawData(diagRequest(c.family, c.protocol, 0, c.id))
	switch _, err := req.Execute(unix.NETLINK_INET_DIAG, 0); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE): // ESTALE: another has its addresses
		return false, nil
	default:
		return false, fmt.Errorf("reset the connection of port %d to %s (needs a kernel with INET_DIAG_DESTROY): %w",
			c.local.Port(), c.remote, err)
	}
}

// destroyAll are those of connections that were ended.
func destroyAll(connections []connection) (ended int, err error) {
	for _, c := range connections {
		done, err := c.destroy()
		if err != nil {
			return ended, err
		}
		if done {
			ended++
		}
	}
	return ended, nil
}

// diagRequest is the kernel's struct inet_diag_req_v2.
func diagRequest(family, protocol byte, states uint32, id []byte) []byte {
	b := []byte{family, protocol, 0, 0}
	return append(binary.NativeEndian.AppendUint32(b, states), id...)
}
