// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// Proxied is a connection to a pod's application that passes the proxy. In the pod's namespace it is two: the caller's,
// and the one that the proxy has made to the application, which may be unknown.
type Proxied struct{ Caller, Application Leg }

// Leg is one of the two. Local is the proxy's end.
type Leg struct{ Local, Remote netip.AddrPort }

// EndProxied resets connections to the pod's applications that pass the proxy: the given ones in mTLS, and all that came
// in plaintext to a port where that is refused now; nil: nowhere. Both legs are reset, so that nothing of what the proxy
// holds for either side is delivered any more. It tells how many legs there were.
func EndProxied(
	ns *netns.Namespace, proxy proxymark.Mark, mtls []Proxied, refused func(port uint16) bool,
) (ended int, err error) {
	err = ns.Do(func() error {
		open, _, err := sockets(unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		end, failed := toEnd(open, proxy.Mark(), mtls, refused, dialledPorts)
		ended, err = destroyAll(end)
		return errors.Join(failed, err)
	})
	if err != nil {
		err = fmt.Errorf("end connections that are refused now in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// toEnd picks the sockets to be destroyed. In plaintext, the legs to applications tell their ports; of which port those
// of the callers are is asked for only if some of them must go.
func toEnd(
	open []connection, mark uint32, mtls []Proxied, refused func(port uint16) bool,
	dialled func() (map[netip.AddrPort]uint16, error),
) (end []connection, err error) {
	end = legsOf(mtls, open, mark)
	if refused == nil {
		return end, nil
	}
	var callers []connection
	stay := 0
	for _, c := range open {
		toApplication := c.mark == mark && isApplication(c.remote.Addr())
		switch {
		case toApplication && refused(c.remote.Port()):
			end = append(end, c)
		case toApplication:
			stay++
		case c.local.Port() == names.PortInbound:
			callers = append(callers, c)
		}
	}
	if len(callers) <= stay { // each belongs to one that stays
		return end, nil
	}
	ports, err := dialled()
	return append(end, slices.DeleteFunc(callers, func(c connection) bool {
		port, known := ports[c.remote]
		return !known || !refused(port)
	})...), err
}

// legsOf are the sockets of connections in mTLS. That to the application goes with the caller's only: by itself it may be
// of another connection by now.
func legsOf(mtls []Proxied, open []connection, mark uint32) (end []connection) {
	if len(mtls) == 0 {
		return nil
	}
	callers, applications := map[Leg]connection{}, map[Leg]connection{}
	for _, c := range open {
		switch {
		case c.local.Port() == names.PortMTLS:
			callers[Leg{c.local, c.remote}] = c
		case c.mark == mark:
			applications[Leg{c.local, c.remote}] = c
		}
	}
	for _, p := range mtls {
		caller, found := callers[p.Caller]
		if !found {
			continue
		}
		end = append(end, caller)
		if a, found := applications[p.Application]; found {
			end = append(end, a)
		}
	}
	return end
}

func isApplication(a netip.Addr) bool {
	return a == netip.MustParseAddr(names.ApplicationAddress) || a == netip.MustParseAddr(names.ApplicationAddress6)
}

// dialledPorts tells which ports the callers in plaintext dialled, by their addresses. The kernel has it of each connection
// that it redirects.
func dialledPorts() (map[netip.AddrPort]uint16, error) {
	out := map[netip.AddrPort]uint16{}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			return nil, fmt.Errorf("list redirected connections: %w", err)
		}
		for _, f := range flows {
			if f.Forward.Protocol != unix.IPPROTO_TCP || f.Reverse.SrcPort != names.PortInbound {
				continue
			}
			// The kernel may have given the caller another port, for the proxy to tell it from others.
			if a, ok := netip.AddrFromSlice(f.Reverse.DstIP); ok {
				out[netip.AddrPortFrom(a.Unmap(), f.Reverse.DstPort)] = f.Forward.DstPort
			}
		}
	}
	return out, nil
}
