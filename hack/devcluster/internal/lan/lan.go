// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lan makes the network that joins the nodes: one namespace with a bridge, and one leg of it in each node's
// namespace. The machine's own namespace gets no leg, so nothing in here can be reached from outside, or reach out.
package lan

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// netnsDir is where named network namespaces are, as `ip netns` has them.
const netnsDir = "/run/netns"

// nodeLink is the name of a node's leg inside the node.
const nodeLink = "eth0"

// Up makes what is missing of the network.
func Up() error {
	if err := upLan(); err != nil {
		return fmt.Errorf("network %s: %w", topology.LanNetns, err)
	}
	for _, n := range topology.Nodes {
		if err := upNode(n); err != nil {
			return fmt.Errorf("network of %s: %w", n.Name, err)
		}
	}
	return nil
}

// Down removes the namespaces, and with them every link and route in them.
func Down() error {
	var errs []error
	for _, n := range topology.Nodes {
		errs = append(errs, remove(n.Netns()))
	}
	return errors.Join(append(errs, remove(topology.LanNetns))...)
}

func remove(name string) error {
	if _, err := os.Lstat(filepath.Join(netnsDir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	path := filepath.Join(netnsDir, name)
	// EINVAL: a plain file that was left without its mount.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("removing network namespace %s: %w", name, err)
	}
	err := os.Remove(path)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("network namespace %s lies below what was mounted over %s since, as `ip netns add` does: "+
			"umount %s, and try again", name, netnsDir, netnsDir)
	}
	return err
}

func upLan() error {
	h, err := open(topology.LanNetns)
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := h.ensureLink(&netlink.Bridge{LinkAttrs: attrs(topology.LanBridge)})
	if err != nil {
		return err
	}
	if err := h.ensureAddress(bridge, topology.LanAddress); err != nil {
		return err
	}
	// Forwarding makes the lan answer "net unreachable" at once instead of swallowing packets.
	if err := h.sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	for _, n := range topology.Nodes {
		if err := h.route(n.PodCIDR, n.Address); err != nil {
			return err
		}
	}
	return nil
}

func upNode(n topology.Node) error {
	lan, err := open(topology.LanNetns)
	if err != nil {
		return err
	}
	defer lan.Close()
	node, err := open(n.Netns())
	if err != nil {
		return err
	}
	defer node.Close()
	if err := connect(lan, node, n); err != nil {
		return err
	}
	leg, err := node.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	if err := node.ensureAddress(leg, n.Address); err != nil {
		return err
	}
	// A dead end, because the lan has no other leg; but without a default route no ClusterIP could be looked up.
	if err := node.route("0.0.0.0/0", topology.LanAddress); err != nil {
		return err
	}
	for _, other := range topology.Nodes {
		if other.Name == n.Name {
			continue
		}
		if err := node.route(other.PodCIDR, other.Address); err != nil {
			return err
		}
	}
	for _, s := range [][2]string{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
	} {
		if err := node.sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the virtual cable between the bridge and the node.
func connect(lan, node *handle, n topology.Node) error {
	bridge, err := lan.LinkByName(topology.LanBridge)
	if err != nil {
		return err
	}
	if _, err := lan.LinkByName(n.Name); err == nil {
		return nil
	}
	cable := &netlink.Veth{LinkAttrs: attrs(n.Name), PeerName: nodeLink, PeerNamespace: netlink.NsFd(node.ns)}
	cable.MasterIndex = bridge.Attrs().Index
	if err := lan.LinkAdd(cable); err != nil {
		return fmt.Errorf("connecting to the bridge: %w", err)
	}
	return lan.LinkSetUp(cable)
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// handle is a named network namespace that is open for changes.
type handle struct {
	*netlink.Handle
	ns vnetns.NsHandle
}

// open opens the namespace of that name, made if need be, with loopback up.
func open(name string) (*handle, error) {
	ns, err := ensureNetns(name)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	nl, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	h := &handle{nl, ns}
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *handle) Close() {
	h.Handle.Close()
	_ = h.ns.Close()
}

func ensureNetns(name string) (vnetns.NsHandle, error) {
	path := filepath.Join(netnsDir, name)
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err == nil {
		if st.Type == unix.NSFS_MAGIC {
			return vnetns.GetFromPath(path)
		}
		// A file without its mount: left by a crash.
		if err := os.Remove(path); err != nil {
			return vnetns.None(), err
		}
	}
	ns := vnetns.None()
	err := onOwnThread(func() (err error) {
		ns, err = vnetns.NewNamed(name)
		return err
	})
	return ns, err
}

// onOwnThread runs f on a thread that ends with it, so that f may change the thread's network namespace.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func (h *handle) ensureLink(l netlink.Link) (netlink.Link, error) {
	if err := h.LinkAdd(l); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return h.LinkByName(l.Attrs().Name)
}

// ensureAddress gives a link its address on the lan and sets it up.
func (h *handle) ensureAddress(l netlink.Link, address string) error {
	bits := netip.MustParsePrefix(topology.LanPrefix).Bits()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(bits, 32)}}
	if err := h.AddrReplace(l, addr); err != nil {
		return err
	}
	return h.LinkSetUp(l)
}

func (h *handle) route(to, via string) error {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	return h.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
}

// sysctl sets a network setting of the namespace: which one /proc/sys/net shows follows the thread that opens it.
func (h *handle) sysctl(name, value string) error {
	return onOwnThread(func() error {
		if err := vnetns.Set(h.ns); err != nil {
			return err
		}
		err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		return err
	})
}
