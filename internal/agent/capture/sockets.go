// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// EndPlaintext resets the connections to the pod's applications that don't pass the proxy, which are those from before
// it was captured: rules only see new ones. And it resets what the proxy has made to the applications of others in
// plaintext, which it would let live for a while. Those that the pod opened itself stay, as do those within the pod,
// and kubelet's probes. refused tells at which ports plaintext isn't taken.
func EndPlaintext(
	ns *netns.Namespace, proxy proxymark.Mark, probes []netip.AddrPort, refused func(port uint16) bool,
) (ended int, err error) {
	err = ns.Do(func() error {
		open, listening, err := sockets(unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		end := throughTheProxy(open, proxy.Mark(), refused)
		past, err := withoutLocalEnd(unix.IPPROTO_TCP, pastTheProxy(open, listening, probes, refused))
		if err != nil {
			return err
		}
		ended, err = destroyAll(append(end, past...))
		return err
	})
	if err != nil {
		err = fmt.Errorf("end connections in plaintext in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// Marked is how many connections the proxy has in the namespace.
func Marked(ns *netns.Namespace, proxy proxymark.Mark) (n int, err error) {
	err = ns.Do(func() error {
		open, err := marked(proxy)
		n = len(open)
		return err
	})
	if err != nil {
		err = fmt.Errorf("count the proxy's connections in %s: %w", ns.Path(), err)
	}
	return n, err
}

// EndMarked resets the connections that the proxy has in the namespace. Without rules the application's answers
// wouldn't find to it any more, and whoever looks at packets would see its mark.
func EndMarked(ns *netns.Namespace, proxy proxymark.Mark) (ended int, err error) {
	err = ns.Do(func() error {
		open, err := marked(proxy)
		if err != nil {
			return err
		}
		ended, err = destroyAll(open)
		return err
	})
	if err != nil {
		err = fmt.Errorf("end the proxy's connections in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// marked are the proxy's of the current thread's namespace: what it has opened, and what its listeners took, which have
// their mark from them.
func marked(proxy proxymark.Mark) ([]connection, error) {
	open, _, err := sockets(unix.IPPROTO_TCP)
	return slices.DeleteFunc(open, func(c connection) bool { return c.mark != proxy.Mark() }), err
}

// throughTheProxy picks the proxy's connections to applications of which the callers came in plaintext: no others have
// that address.
func throughTheProxy(open []connection, mark uint32, refused func(port uint16) bool) (end []connection) {
	application := []netip.Addr{
		netip.MustParseAddr(names.ApplicationAddress), netip.MustParseAddr(names.ApplicationAddress6),
	}
	for _, c := range open {
		if c.mark == mark && slices.Contains(application, c.remote.Addr()) && refused(c.remote.Port()) {
			end = append(end, c)
		}
	}
	return end
}

// pastTheProxy picks the connections to an application whose other end is not in the same namespace: the proxy connects
// to the application from within.
func pastTheProxy(
	open []connection, listening map[uint16]bool, probes []netip.AddrPort, refused func(port uint16) bool,
) []connection {
	open = slices.DeleteFunc(open, func(c connection) bool {
		return c.state != stateEstablished && c.state != stateFinWait1 && c.state != stateCloseWait
	})
	within := localEnds(open)
	proxy := []uint16{names.PortOutbound, names.PortInbound, names.PortMTLS}
	kubelet := []netip.Addr{netip.MustParseAddr(names.ProbeSourceAddress), netip.MustParseAddr(names.ProbeSourceAddress6)}
	return slices.DeleteFunc(open, func(c connection) bool {
		return !listening[c.local.Port()] || slices.Contains(proxy, c.local.Port()) || !refused(c.local.Port()) ||
			within[c.remote] || c.remote.Addr().IsLoopback() ||
			slices.Contains(kubelet, c.remote.Addr()) && slices.Contains(probes, c.local)
	})
}

// withoutLocalEnd looks again for the other ends of connections: the kernel's list is none of one moment, and has one
// end of what begins or ends meanwhile without the other.
func withoutLocalEnd(protocol byte, seen []connection) ([]connection, error) {
	if len(seen) == 0 {
		return nil, nil
	}
	now, _, err := sockets(protocol)
	if err != nil {
		return nil, err
	}
	within := localEnds(now)
	return slices.DeleteFunc(seen, func(c connection) bool { return within[c.remote] }), nil
}

// EndOutbound ends the connections that the pod opened to where it may not send once it is closed. Its rules refuse
// what it goes on to send there; this is for those that only listen, and for the other end. Those of the proxy stay,
// and those that others opened.
func EndOutbound(ns *netns.Namespace, p Pod) (ended int, err error) {
	err = ns.Do(func() error {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			open, listening, err := sockets(protocol)
			if protocol == unix.IPPROTO_UDP && errors.Is(err, unix.ENOENT) {
				continue // a kernel that doesn't list them
			}
			if err != nil {
				return err
			}
			end, err := withoutLocalEnd(protocol, p.outside(open, listening))
			if err != nil {
				return err
			}
			n, err := destroyAll(end)
			if ended += n; err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("end connections to outside of the mesh in %s: %w", ns.Path(), err)
	}
	return ended, err
}

// outside picks what the rules of a closed pod would refuse.
func (p Pod) outside(open []connection, listening map[uint16]bool) []connection {
	within := localEnds(open)
	return slices.DeleteFunc(open, func(c connection) bool {
		a := c.remote.Addr()
		return c.mark == p.Proxy.Mark() || listening[c.local.Port()] || within[c.remote] ||
			a.IsLoopback() || a.IsUnspecified() ||
			slices.ContainsFunc(p.Ranges, func(r netip.Prefix) bool { return r.Contains(a) }) ||
			slices.Contains(p.resolvers(), c.remote)
	})
}

func localEnds(open []connection) map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	for _, c := range open {
		out[c.local] = true
	}
	return out
}
