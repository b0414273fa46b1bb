// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"

	"go4.org/netipx"
)

// A waypoint is trusted within the cluster, and whoever writes an XBackend has it connect to whatever a name stands for
// at the moment. So what is looked up leads outside or nowhere.

var (
	// neverOutside are ranges that no host outside is in, whatever a Mesh says: of this machine, of this link, where
	// clouds tell a machine its secrets (169.254.169.254; 168.63.129.16 of Azure and 100.100.100.200 of Alibaba Cloud
	// are in no range of their own, nor are those of IPv6 below), groups, what isn't assigned, and what stands for
	// addresses of IPv4, which could be any of them.
	neverOutside = ranged("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32",
		"192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
		"fe80::/10", "fec0::/10", "ff00::/8",
		"fd00:ec2::/32",                                                 // AWS
		"fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128", // Google, Oracle, Scaleway
		"fd00:a9fe:a9fe::1/128", "fd00:100::100:200/128") // Akamai, Alibaba
	// private ranges are within some network, of which a Mesh may say that it is outside.
	private = ranged("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7")
)

func ranged(in ...string) []netip.Prefix { return prefixes(in) }

// RefusedRanges are those in which no host outside is: own are the cluster's, allowed are private ones that are outside
// all the same.
func RefusedRanges(own, allowed []netip.Prefix) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range private {
		b.AddPrefix(p)
	}
	for _, p := range allowed {
		b.RemovePrefix(p)
	}
	for _, more := range [][]netip.Prefix{neverOutside, own} {
		for _, p := range more {
			b.AddPrefix(p)
		}
	}
	set, err := b.IPSet()
	if err != nil { // a prefix that is none; prefixes has none
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	return set.Prefixes()
}
