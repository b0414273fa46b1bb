// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Host is what the node's own namespace needs: connections that start on the node itself and go to a probe port of a
// local captured pod get a source address by which the pod's rules know them as probes. Kubelet is what starts there;
// forwarded traffic, NodePorts included, keeps its address and never qualifies. Nobody else has that source address:
// what comes with it from another interface, be it a pod's or the network's, is dropped.
type Host struct {
	// Probes are addresses of pods with ports that kubelet probes.
	Probes []netip.AddrPort
}

// ApplyHost brings the node's namespace up to date.
func ApplyHost(ns *netns.Namespace, h Host) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	if err := h.ruleset().apply(c); err != nil {
		return fmt.Errorf("apply the node's nftables rules: %w", err)
	}
	return nil
}

// RemoveHost leaves nothing behind in the node's namespace.
func RemoveHost(ns *netns.Namespace) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	if err := removeTable(c); err != nil {
		return fmt.Errorf("remove the node's nftables rules: %w", err)
	}
	return nil
}

// VerifyHost compares the node's namespace with how it should be, and says for people what differs.
func VerifyHost(ns *netns.Namespace, h Host) (drift []string, err error) {
	c, err := connect(ns)
	if err != nil {
		return nil, err
	}
	drift, err = h.ruleset().drift(c)
	if err != nil {
		return nil, fmt.Errorf("read the node's nftables rules: %w", err)
	}
	return drift, nil
}

// justBefore kube-proxy's and the CNI's source NAT: the first chain that translates a connection decides.
const justBefore = -1

func (h Host) ruleset() *ruleset {
	r := newRuleset()
	var forged, rules [][]expr.Any
	for _, f := range families {
		forged = append(forged, rule(notFromLoopback(), f.from(f.probe), drop()))
		rules = append(rules, rule(f.toPortSet(r.addProbes(f, h.Probes)), local(true), f.snat(f.probe)))
	}
	r.addChain("forged", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, forged...)
	r.addChain("probes", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource+justBefore,
		rules...)
	return r
}

// addProbes adds the set of the addresses and ports of a family that kubelet calls.
func (r *ruleset) addProbes(f family, probes []netip.AddrPort) *nftables.Set {
	return r.addSet(&nftables.Set{
		Name:          "probes" + f.suffix,
		KeyType:       nftables.MustConcatSetType(f.key, nftables.TypeInetService),
		Concatenation: true,
	}, portElements(f, probes))
}

// portElements are the elements of a set of addresses and ports of a family.
func portElements(f family, in []netip.AddrPort) []nftables.SetElement {
	in = slices.Clone(in)
	slices.SortFunc(in, netip.AddrPort.Compare)
	var out []nftables.SetElement
	for _, p := range slices.Compact(in) {
		if !p.IsValid() || !f.has(p.Addr()) {
			continue
		}
		// Each part of a concatenation is padded to 32 bits.
		key := append(p.Addr().AsSlice(), binaryutil.BigEndian.PutUint16(p.Port())...)
		out = append(out, nftables.SetElement{Key: append(key, 0, 0)})
	}
	return out
}
