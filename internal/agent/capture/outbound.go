// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Chains that refuse what leaves for addresses outside of the mesh's ranges, and count it: what the pod's processes
// send, and what passes through the pod, as from containers within it.
const (
	chainOutbound = "outbound"
	chainThrough  = "through"
)

// portDNS is the port of resolvers.
const portDNS = 53

// addOutbound keeps a closed pod from addresses outside of the ranges, over any protocol, and answers what it refuses.
// The rules are there in every pod, and a set switches them on: to close or open a pod resets nothing that other chains
// noted for it. They run before addresses are translated.
func (r *ruleset) addOutbound(p Pod, ranges []*nftables.Set) {
	closed := r.addSet(&nftables.Set{Name: "closed", KeyType: nftables.TypeNFProto}, p.closed())
	rules := [][]expr.Any{
		rule(of(p.Proxy), returns()),
		rule(familyNotIn(closed), returns()),
	}
	for i, f := range families {
		resolvers := r.addSet(&nftables.Set{
			Name:          "resolvers" + f.suffix,
			KeyType:       nftables.MustConcatSetType(f.key, nftables.TypeInetService),
			Concatenation: true,
		}, portElements(f, p.resolvers()))
		rules = append(rules,
			rule(f.toSet(ranges[i]), returns()),
			rule(f.toPortSetOver(unix.IPPROTO_UDP, resolvers), returns()),
			rule(f.toPortSet(resolvers), returns()),
		)
	}
	rules = append(rules,
		// What opens a connection is no answer, whatever somebody outside has sent ahead and the kernel makes of it.
		rule(syn(), counted(), reset()),
		rule(reply(), returns()),
		rule(withReset(), returns()), // so that the other end of what is ended hears of it
	)
	rules = append(rules, neighbours()...)
	rules = append(rules, rule(tcp(), counted(), reset()), rule(counted(), prohibited()))
	r.addBranch(chainOutbound, rules...)
	r.addChain(chainThrough, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter,
		rules...)
}

// closed are the IP families over which the pod is closed: all or none.
func (p Pod) closed() (out []nftables.SetElement) {
	if !p.Closed {
		return nil
	}
	for _, f := range families {
		out = append(out, nftables.SetElement{Key: []byte{f.nfproto}})
	}
	return out
}

func (p Pod) resolvers() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(p.Resolvers))
	for _, a := range p.Resolvers {
		out = append(out, netip.AddrPortFrom(a, portDNS))
	}
	return out
}

// neighbours lets pass by what IPv6 finds routers and other hosts of the link, and says which multicast it listens to.
// No router passes it on. To send anything of one's own so takes CAP_NET_RAW, and with that no rule holds (packet
// sockets).
func neighbours() [][]expr.Any {
	const (
		solicitRouter, redirected     = 133, 137
		queryListener, reportListener = 130, 143
		offsetHopLimit, fromSameLink  = 7, 255
		offsetDestination, lengthLink = 24, 2
	)
	v6 := families[slices.IndexFunc(families, func(f family) bool { return f.nfproto == unix.NFPROTO_IPV6 })]
	kind := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}
	of := func(from, to byte) []expr.Any {
		return rule(v6.is(), l4proto(expr.CmpOpEq, unix.IPPROTO_ICMPV6), []expr.Any{
			kind, &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{from}, ToData: []byte{to}},
		})
	}
	header := func(offset, length uint32, want ...byte) []expr.Any {
		return compare(expr.CmpOpEq, &expr.Payload{
			DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length,
		}, want)
	}
	return [][]expr.Any{
		rule(of(solicitRouter, redirected), header(offsetHopLimit, 1, fromSameLink), returns()),
		rule(of(queryListener, reportListener), header(offsetDestination, lengthLink, 0xff, 0x02), returns()),
	}
}

// familyNotIn is: meta nfproto != @SET.
func familyNotIn(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true},
	}
}
