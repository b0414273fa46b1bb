// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// chainShare is the chain that refuses what is beyond a pod's share, and counts it.
const chainShare = "share"

// setDialled is what the names of the sets begin with that note what a pod dials.
const setDialled = "dialled"

// addShare bounds how many addresses a pod dials through the proxy within some time: the proxy, which all pods of the
// node share, keeps something for each. What is beyond is refused at once. It is for opening packets alone, before
// addresses are translated.
func (r *ruleset) addShare(proxy proxymark.Mark, ranges []*nftables.Set, most uint32) {
	rules := [][]expr.Any{rule(of(proxy), returns()), rule(toLoopback(), returns())}
	for i, f := range families {
		dialled := r.addSet(&nftables.Set{
			Name:          setDialled + f.suffix,
			KeyType:       nftables.MustConcatSetType(f.key, nftables.TypeInetService),
			Concatenation: true,
			Dynamic:       true,
			HasTimeout:    true,
			Timeout:       names.DialledTime,
			Size:          cmp.Or(most, uint32(v1alpha1.DefaultAddressesPerPod)),
		}, nil)
		rules = append(rules,
			rule(f.toSet(ranges[i]), f.noteIn(dialled), returns()),
			rule(f.toSet(ranges[i]), counted(), reset()),
		)
	}
	r.addBranch(chainShare, rules...)
}

// Dial is an address, and when it was dialled last.
type Dial struct {
	To netip.AddrPort
	At time.Time
}

// Dialled is what the pod dialled within names.DialledTime, as far as it was let, the last one first. A pod that isn't
// captured is an error.
func Dialled(ns *netns.Namespace) ([]Dial, error) {
	c, err := connect(ns)
	if err != nil {
		return nil, err
	}
	var found []Dial
	for _, f := range families {
		set := &nftables.Set{
			Table: newRuleset().table, Name: setDialled + f.suffix,
			KeyType: nftables.MustConcatSetType(f.key, nftables.TypeInetService),
		}
		elements, err := c.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("read set %s in %s: %w", set.Name, ns.Path(), err)
		}
		forgotten := time.Now().Add(-names.DialledTime) // what was dialled then
		for _, e := range elements {
			if addr, ok := netip.AddrFromSlice(e.Key[:f.length]); ok {
				to := netip.AddrPortFrom(addr, binary.BigEndian.Uint16(e.Key[f.length:]))
				found = append(found, Dial{to, forgotten.Add(e.Expires)})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Dial) int { return b.At.Compare(a.At) })
	return found, nil
}
