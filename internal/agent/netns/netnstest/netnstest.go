// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package netnstest makes network namespaces for tests, so that what a test does to the network ends with it.
package netnstest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// NeedRoot skips the test where network namespaces can't be made.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root to make network namespaces")
	}
}

// New is a network namespace with loopback up. It goes with the test.
func New(t testing.TB, name string) *netns.Namespace {
	t.Helper()
	NeedRoot(t)
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		made <- unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	}()
	require.NoError(t, <-made, "make a network namespace")
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	ns, err := netns.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	h := handle(t, ns)
	lo, err := h.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, h.LinkSetUp(lo))
	return ns
}

func handle(t testing.TB, ns *netns.Namespace) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()))
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return h
}

// Link joins two namespaces with a pair of interfaces that are up and have no address.
func Link(t testing.TB, a *netns.Namespace, aName string, b *netns.Namespace, bName string) {
	t.Helper()
	ha, hb := handle(t, a), handle(t, b)
	require.NoError(t, ha.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName, MTU: 1500},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.Fd()),
	}))
	for h, name := range map[*netlink.Handle]string{ha: aName, hb: bName} {
		l, err := h.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, h.LinkSetUp(l))
	}
}

// Linked are a pod and its peer: two namespaces whose eth0 lead to each other, with these addresses.
func Linked(t testing.TB, ofPod, ofPeer []string) (pod, peer *netns.Namespace) {
	t.Helper()
	pod, peer = New(t, "pod"), New(t, "peer")
	Link(t, pod, "eth0", peer, "eth0")
	for _, a := range ofPod {
		Address(t, pod, "eth0", netip.MustParsePrefix(a))
	}
	for _, a := range ofPeer {
		Address(t, peer, "eth0", netip.MustParsePrefix(a))
	}
	return pod, peer
}

// Serve has handle serve each connection to an address of a namespace, which is closed then.
func Serve(t testing.TB, ns *netns.Namespace, address string, handle func(net.Conn)) {
	t.Helper()
	var l net.Listener
	require.NoError(t, ns.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		return err
	}))
	ServeOn(t, l, handle)
}

// ServeOn is Serve on a listener.
func ServeOn(t testing.TB, l net.Listener, handle func(net.Conn)) {
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// Echo serves an address of a namespace: it sends back what comes.
func Echo(t testing.TB, ns *netns.Namespace, address string) {
	t.Helper()
	Serve(t, ns, address, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// Index of an interface.
func Index(t testing.TB, ns *netns.Namespace, name string) int {
	t.Helper()
	l, err := handle(t, ns).LinkByName(name)
	require.NoError(t, err)
	return l.Attrs().Index
}

// Address adds an address to an interface.
func Address(t testing.TB, ns *netns.Namespace, name string, p netip.Prefix) {
	t.Helper()
	h := handle(t, ns)
	l, err := h.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, h.AddrAdd(l, &netlink.Addr{
		IPNet: ipNet(p),
		Flags: unix.IFA_F_NODAD,
	}))
}

// Route adds a route through an interface, by a gateway if that is valid.
func Route(t testing.TB, ns *netns.Namespace, name string, dst netip.Prefix, gateway netip.Addr) {
	t.Helper()
	h := handle(t, ns)
	l, err := h.LinkByName(name)
	require.NoError(t, err)
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(dst)}
	if gateway.IsValid() {
		r.Gw = gateway.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	require.NoError(t, h.RouteAdd(r))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Sysctl sets a setting of a namespace, such as net/ipv4/ip_forward.
func Sysctl(t testing.TB, ns *netns.Namespace, name, value string) {
	t.Helper()
	require.NoError(t, ns.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	}))
}
