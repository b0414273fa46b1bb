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

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Proxied is a connection to a pod's application that passes the proxy. In the pod's namespace it is two: the caller's,
// and the one that the proxy has made to the application, which may be unknown.
type Proxied struct{ Caller, Application Leg }

// Leg is one of the two. Local is the proxy's end.
type Leg struct{ Local, Remote netip.AddrPort }

// EndProxied resets connections that pass the proxy: both legs of each, so that nothing of what the proxy holds for
// either side is delivered any more. It tells how many connections had any. What it costs goes by how many there are to
// end, not by how many are open.
func EndProxied(ns *netns.Namespace, connections []Proxied) (ended int, err error) {
	err = ns.Do(func() error {
		s, err := nl.Subscribe(unix.NETLINK_INET_DIAG)
		if err != nil {
			return fmt.Errorf("ask for sockets: %w", err)
		}
		defer s.Close()
		if err := s.SetReceiveTimeout(&nl.SocketTimeoutTv); err != nil {
			return fmt.Errorf("ask for sockets: %w", err)
		}
		via := map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: {Socket: s}}
		var failed []error
		for _, p := range connections {
			caller, err := p.Caller.end(via)
			failed = append(failed, err)
			application, err := p.Application.end(via)
			if failed = append(failed, err); caller || application {
				ended++
			}
		}
		return errors.Join(failed...)
	})
	if err != nil {
		err = fmt.Errorf("end connections that are refused now in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// end resets the leg's socket, if there is one. It is looked up before, for the kernel would take the listening one if
// it is gone.
func (l Leg) end(via map[int]*nl.SocketHandle) (ended bool, err error) {
	if !l.Local.IsValid() || !l.Remote.IsValid() {
		return false, nil
	}
	family, id := byte(unix.AF_INET6), make([]byte, diagIDLength)
	if l.Local.Addr().Is4() {
		family = unix.AF_INET
	}
	binary.BigEndian.PutUint16(id, l.Local.Port())
	binary.BigEndian.PutUint16(id[2:], l.Remote.Port())
	copy(id[diagSource:], l.Local.Addr().AsSlice())
	copy(id[diagTarget:], l.Remote.Addr().AsSlice())
	for n := diagCookie; n < diagIDLength; n++ {
		id[n] = 0xff // any
	}
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.Sockets = via
	req.AddRawData(diagRequest(family, unix.IPPROTO_TCP, diagEveryState, id))
	messages, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for the connection of port %d to %s: %w", l.Local.Port(), l.Remote, err)
	}
	for _, m := range messages {
		c, err := parseDiag(m, unix.IPPROTO_TCP)
		if err != nil {
			return false, err
		}
		if c.state == stateListen || c.state == stateTimeWait || c.local != l.Local || c.remote != l.Remote {
			continue
		}
		c.via = via
		return c.destroy()
	}
	return false, nil
}
