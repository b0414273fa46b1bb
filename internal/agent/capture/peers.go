// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
)

// chainPeers is the chain that refuses what is beyond a peer's limits, and counts it.
const chainPeers = "peers"

const (
	// roomForPeers is how many peers of an IP family are counted by themselves: as many as there may be connections
	// (package envoy). Those that find no room are counted together, as if they were one, so they take nothing from
	// peers that have connections.
	roomForPeers = 16_384
	// PeerPerSecond is how many connections a peer may begin in a second, and at once: a quarter of what the proxy takes
	// of all peers. The kernel looks through the peer's open connections when it counts a new one, so this bounds the
	// work that one peer makes, too.
	PeerPerSecond = 1_024
)

// addPeers bounds what one address has of the connections to the pod that pass the proxy, which can't tell addresses
// apart: how many are open, mTLS and plaintext together, and how many begin in a second. What is beyond is reset at
// once. Whoever has no open connection is forgotten. It is for opening packets from without alone.
func (r *ruleset) addPeers(probes []*nftables.Set, most uint32) {
	rules := [][]expr.Any{rule(notLocal(), returns())}
	var count [][]expr.Any
	for i, f := range families {
		peers := r.addSet(&nftables.Set{Name: "peers" + f.suffix, KeyType: f.key, Dynamic: true, Size: roomForPeers}, nil)
		rules = append(rules, rule(f.from(f.probe), f.toPortSet(probes[i]), returns()))
		count = append(count,
			rule(f.is(), f.within(peers, most), returns()),
			rule(f.is(), f.withoutRoom(peers), withinLimits(most), returns()),
		)
	}
	rules = append(rules, count...)
	rules = append(rules, rule(counted(), reset()))
	r.addBranch(chainPeers, rules...)
}

// withinLimits is: limit rate R/second burst R packets ct count N. The rate comes first: what exceeds it isn't counted.
func withinLimits(most uint32) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: PeerPerSecond, Unit: expr.LimitTimeSecond, Burst: PeerPerSecond},
		&expr.Connlimit{Count: most},
	}
}

// within is: add @SET { ip saddr limit rate … ct count N }. It doesn't match what finds no room in the set.
func (f family) within(s *nftables.Set, most uint32) []expr.Any {
	return []expr.Any{f.address(f.src), &expr.Dynset{
		SrcRegKey: reg, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: withinLimits(most),
	}}
}

// withoutRoom is: ip saddr != @SET. Unlike its contrary, it leaves the limits in the set alone.
func (f family) withoutRoom(s *nftables.Set) []expr.Any {
	return []expr.Any{f.address(f.src), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// CanLimitPeers says why the kernel can't count connections by peer: it takes Linux 5.11 with CONFIG_NFT_CONNLIMIT.
// Nothing stays in the namespace.
func CanLimitPeers(ns *netns.Namespace) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	r := newRuleset()
	r.table.Name = names.NftTable + "-trial"
	var probes []*nftables.Set
	for _, f := range families {
		probes = append(probes, r.addProbes(f, nil))
	}
	r.addPeers(probes, 1)
	r.addChain("trial", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityMangle,
		rule(jumps(chainPeers)))
	if err := r.add(c); err != nil {
		return err
	}
	c.DelTable(r.table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("try rules that count connections by peer: %w", err)
	}
	return nil
}
