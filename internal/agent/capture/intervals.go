// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// span is the addresses from first to last, both included.
type span struct{ first, last netip.Addr }

// spans joins overlapping and adjacent prefixes of a family: an interval set takes no overlap.
func spans(f family, prefixes []netip.Prefix) []span {
	var in []span
	for _, p := range prefixes {
		if p.IsValid() && f.has(p.Addr()) {
			p = p.Masked()
			in = append(in, span{p.Addr(), lastOf(p)})
		}
	}
	slices.SortFunc(in, func(a, b span) int { return a.first.Compare(b.first) })
	var out []span
	for _, s := range in {
		if n := len(out); n > 0 && touches(out[n-1], s) {
			if out[n-1].last.Less(s.last) {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func touches(a, b span) bool {
	next := a.last.Next()
	return !next.IsValid() || !next.Less(b.first)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// intervals are the elements of an interval set: each span's first address, and the one after its last, unless there
// is none.
func intervals(f family, prefixes []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range spans(f, prefixes) {
		out = append(out, nftables.SetElement{Key: s.first.AsSlice()})
		if end := s.last.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
