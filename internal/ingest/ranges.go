// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// NodeRanges are the ranges that the pods of each node have their addresses from. A node's kubelet can't change those
// of its Node, but it makes the Node, and one that was taken over may make it again once somebody has deleted it. So a
// range doesn't count that overlaps one of an older Node.
func NodeRanges(nodes []*corev1.Node) map[string][]netip.Prefix {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	lengths := map[int]bool{}
	for _, n := range nodes {
		for _, p := range prefixes(n.Spec.PodCIDRs) {
			lengths[p.Bits()] = true
		}
	}
	// taken are the ranges that count, around those that one of them lies in.
	taken, around := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	wider := func(p netip.Prefix) (out []netip.Prefix) {
		for bits := range lengths {
			if bits < p.Bits() {
				out = append(out, netip.PrefixFrom(p.Addr(), bits).Masked())
			}
		}
		return out
	}
	out := map[string][]netip.Prefix{}
	for _, n := range nodes {
		for _, p := range prefixes(n.Spec.PodCIDRs) {
			if taken[p] || around[p] || slices.ContainsFunc(wider(p), func(w netip.Prefix) bool { return taken[w] }) {
				continue
			}
			taken[p] = true
			for _, w := range wider(p) {
				around[w] = true
			}
			out[n.Name] = append(out[n.Name], p)
		}
	}
	return out
}

// ranges that the pods of a node have their addresses from; ip4 and ip6 tell of which families anything is known.
type ranges struct {
	of       []netip.Prefix
	ip4, ip6 bool
}

func sameRanges(a, b ranges) bool {
	return slices.Equal(a.of, b.of) && a.ip4 == b.ip4 && a.ip6 == b.ip6
}

func (r *ranges) know(of []netip.Prefix) {
	for _, p := range of {
		r.ip4, r.ip6 = r.ip4 || p.Addr().Is4(), r.ip6 || p.Addr().Is6()
	}
}

// allRanges are the ranges of all nodes, by node. What is known of the families is under the name of none.
func (i *Ingest) allRanges(c *memo.Ctx, _ struct{}) map[string]ranges {
	var nodes []*corev1.Node
	for _, key := range i.store.Nodes.By(c, cluster.ByNamespace, "") {
		if n, ok := i.store.Nodes.Get(c, key); ok {
			nodes = append(nodes, n)
		}
	}
	out, all := map[string]ranges{}, ranges{}
	for node, of := range NodeRanges(nodes) {
		out[node] = ranges{of: of}
		all.know(of)
	}
	out[""] = all
	return out
}

// rangesOf the pods of a node. Where the Mesh names ranges of its own, a network plugin hands out addresses by itself,
// and what Nodes say is nothing to go by.
func (i *Ingest) rangesOf(c *memo.Ctx, node string) ranges {
	if own := i.podRanges.Get(c, struct{}{}); len(own) > 0 {
		out := ranges{of: own}
		out.know(own)
		return out
	}
	all := i.nodeRanges.Get(c, struct{}{})
	return ranges{of: all[node].of, ip4: all[""].ip4, ip6: all[""].ip6}
}

// have tells whether a pod may have an address; of a family that nothing is known of, any.
func (r ranges) have(addr netip.Addr) bool {
	if addr.Is4() && !r.ip4 || addr.Is6() && !r.ip6 {
		return true
	}
	return contains(r.of, addr)
}

// meshRanges are those that the Mesh itself names.
func (i *Ingest) meshRanges(c *memo.Ctx, _ struct{}) []netip.Prefix {
	m, ok := i.store.Meshes.Get(c, cluster.Key{Name: names.Mesh})
	if !ok || m.Spec.Network == nil {
		return nil
	}
	return prefixes(m.Spec.Network.PodCIDRs)
}

// inPodRanges tells whether an address is one that pods of some node have. Only for an address in doubt: it reads all
// Nodes.
func (i *Ingest) inPodRanges(c *memo.Ctx, addr netip.Addr) bool {
	if own := i.podRanges.Get(c, struct{}{}); len(own) > 0 {
		return contains(own, addr)
	}
	for _, r := range i.nodeRanges.Get(c, struct{}{}) {
		if contains(r.of, addr) {
			return true
		}
	}
	return false
}

func contains(ranges []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// prefixes leaves out what is none.
func prefixes[S ~string](in []S) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range in {
		if p, err := netip.ParsePrefix(string(s)); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}
