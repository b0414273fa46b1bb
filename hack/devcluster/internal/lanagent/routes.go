// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package lanagent

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// routes are the host routes of load-balancer addresses in the lan.
type routes struct{ nl *netlink.Handle }

func openRoutes() (*routes, error) {
	ns, err := vnetns.GetFromName(topology.LanNetns)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", topology.LanNetns, err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &routes{nl}, nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// set sends packets for an address to a node.
func (r *routes) set(a netip.Addr, node string) error {
	return r.nl.RouteReplace(&netlink.Route{Dst: hostNet(a), Gw: net.ParseIP(node)})
}

// retain removes the routes of every load-balancer address that keep does not name.
func (r *routes) retain(keep map[netip.Addr]bool) error {
	pool := netip.MustParsePrefix(topology.LoadBalancerPrefix)
	all, err := r.nl.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, route := range all {
		if route.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		if ones, _ := route.Dst.Mask.Size(); !ok || ones != 32 || !pool.Contains(a) || keep[a] {
			continue
		}
		if err := r.nl.RouteDel(&route); err != nil {
			return err
		}
	}
	return nil
}
