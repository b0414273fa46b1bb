// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// reg is the register that every expression uses.
const reg = 1

// Fragments of rules. Each returns the expressions of one condition or action; rule joins them.

func rule(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func compare(op expr.CmpOp, load expr.Any, data []byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: op, Register: reg, Data: data}}
}

func u32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

// of is: meta mark MARK meta priority PRIORITY, what the proxy itself sends.
func of(proxy proxymark.Mark) []expr.Any {
	return rule(
		compare(expr.CmpOpEq, &expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, u32(proxy.Mark())),
		compare(expr.CmpOpEq, &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg}, u32(proxy.Priority())),
	)
}

// setMark is: meta mark set V.
func setMark(v uint32) []expr.Any { return setMeta(expr.MetaKeyMARK, v) }

// setPriority is: meta priority set V.
func setPriority(v uint32) []expr.Any { return setMeta(expr.MetaKeyPRIORITY, v) }

func setMeta(key expr.MetaKey, v uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: u32(v)},
		&expr.Meta{Key: key, SourceRegister: true, Register: reg},
	}
}

// ctMark is: ct mark V.
func ctMark(v uint32) []expr.Any {
	return compare(expr.CmpOpEq, &expr.Ct{Key: expr.CtKeyMARK, Register: reg}, u32(v))
}

// setCtMark is: ct mark set V.
func setCtMark(v uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: u32(v)},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg},
	}
}

// reply is: ct direction reply.
func reply() []expr.Any {
	const directionReply = 1
	return compare(expr.CmpOpEq, &expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, []byte{directionReply})
}

// loopback is: oiftype loopback and the like. A namespace has one such interface. Every packet is asked this, and to
// compare names costs several times as much.
func loopback(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return compare(op, &expr.Meta{Key: key, Register: reg}, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK))
}

func toLoopback() []expr.Any      { return loopback(expr.MetaKeyOIFTYPE, expr.CmpOpEq) }
func notToLoopback() []expr.Any   { return loopback(expr.MetaKeyOIFTYPE, expr.CmpOpNeq) }
func fromLoopback() []expr.Any    { return loopback(expr.MetaKeyIIFTYPE, expr.CmpOpEq) }
func notFromLoopback() []expr.Any { return loopback(expr.MetaKeyIIFTYPE, expr.CmpOpNeq) }

// tcp is: meta l4proto tcp.
func tcp() []expr.Any { return l4proto(expr.CmpOpEq, unix.IPPROTO_TCP) }

// notTCP is: meta l4proto != tcp.
func notTCP() []expr.Any { return l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP) }

func l4proto(op expr.CmpOp, protocol byte) []expr.Any {
	return compare(op, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, []byte{protocol})
}

// tcpPort is: tcp dport PORT.
func tcpPort(port uint16) []expr.Any {
	return rule(tcp(), compare(expr.CmpOpEq, transportPort(reg), binaryutil.BigEndian.PutUint16(port)))
}

// syn is: tcp flags & (fin | syn | rst | ack) == syn, a connection's first packet. Those that were open before the
// kernel began to track them look new at any later packet, and redirecting them then would break them.
func syn() []expr.Any { return rule(tcp(), flagsSyn(expr.CmpOpEq)) }

// notSyn is: tcp flags & (fin | syn | rst | ack) != syn. What isn't TCP must be gone by then.
func notSyn() []expr.Any { return flagsSyn(expr.CmpOpNeq) }

const flagFin, flagSyn, flagRst, flagAck = 0x01, 0x02, 0x04, 0x10

func flagsSyn(op expr.CmpOp) []expr.Any { return flags(flagFin|flagSyn|flagRst|flagAck, op, flagSyn) }

// withReset is: tcp flags & rst == rst.
func withReset() []expr.Any { return rule(tcp(), flags(flagRst, expr.CmpOpEq, flagRst)) }

func flags(mask byte, op expr.CmpOp, want byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: reg, Data: []byte{want}},
	}
}

func transportPort(register uint32) *expr.Payload {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// family is one IP version: where its addresses are in the header, and what nftables calls them.
type family struct {
	suffix   string
	nfproto  byte
	src, dst uint32
	length   uint32
	key      nftables.SetDatatype
	// probe is the source of kubelet probes, application what the proxy dials for the pod's application.
	probe, application netip.Addr
}

var families = []family{
	{
		suffix: "4", nfproto: unix.NFPROTO_IPV4, src: 12, dst: 16, length: 4, key: nftables.TypeIPAddr,
		probe: netip.MustParseAddr(names.ProbeSourceAddress), application: netip.MustParseAddr(names.ApplicationAddress),
	},
	{
		suffix: "6", nfproto: unix.NFPROTO_IPV6, src: 8, dst: 24, length: 16, key: nftables.TypeIP6Addr,
		probe: netip.MustParseAddr(names.ProbeSourceAddress6), application: netip.MustParseAddr(names.ApplicationAddress6),
	},
}

func (f family) has(a netip.Addr) bool { return a.Is4() == (f.nfproto == unix.NFPROTO_IPV4) }

// is is: meta nfproto ipv4.
func (f family) is() []expr.Any {
	return compare(expr.CmpOpEq, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, []byte{f.nfproto})
}

func (f family) address(offset uint32) *expr.Payload {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length}
}

// from is: ip saddr ADDRESS.
func (f family) from(a netip.Addr) []expr.Any {
	return rule(f.is(), compare(expr.CmpOpEq, f.address(f.src), a.AsSlice()))
}

// notFrom is: ip saddr != ADDRESS.
func (f family) notFrom(a netip.Addr) []expr.Any {
	return rule(f.is(), compare(expr.CmpOpNeq, f.address(f.src), a.AsSlice()))
}

// toSet is: ip daddr @SET.
func (f family) toSet(s *nftables.Set) []expr.Any {
	return rule(f.is(), []expr.Any{f.address(f.dst), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}})
}

// toPortSet is: ip daddr . tcp dport @SET. Address and port lie in consecutive 32-bit registers.
func (f family) toPortSet(s *nftables.Set) []expr.Any { return f.toPortSetOver(unix.IPPROTO_TCP, s) }

// toPortSetOver is the same for another protocol that has ports.
func (f family) toPortSetOver(protocol byte, s *nftables.Set) []expr.Any {
	return rule(f.is(), l4proto(expr.CmpOpEq, protocol), f.destination(), []expr.Any{
		&expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: s.Name, SetID: s.ID},
	})
}

// noteIn is: update @SET { ip daddr . tcp dport }. It doesn't match what finds no room in the set.
func (f family) noteIn(s *nftables.Set) []expr.Any {
	return rule(f.destination(), []expr.Any{
		&expr.Dynset{SrcRegKey: unix.NFT_REG32_00, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE},
	})
}

// destination loads ip daddr . tcp dport.
func (f family) destination() []expr.Any {
	const first32 = unix.NFT_REG32_00
	a := f.address(f.dst)
	a.DestRegister = first32
	return []expr.Any{a, transportPort(first32 + f.length/4)}
}

// local is: fib daddr type local, or fib saddr type local.
func local(source bool) []expr.Any { return addressType(expr.CmpOpEq, source) }

// notLocal is: fib daddr type != local.
func notLocal() []expr.Any { return addressType(expr.CmpOpNeq, false) }

func addressType(op expr.CmpOp, source bool) []expr.Any {
	return compare(op, &expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: source, FlagDADDR: !source},
		u32(unix.RTN_LOCAL))
}

// to is: ip daddr ADDRESS.
func (f family) to(a netip.Addr) []expr.Any {
	return rule(f.is(), compare(expr.CmpOpEq, f.address(f.dst), a.AsSlice()))
}

// Actions.

func returns() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

// jumps is: jump CHAIN.
func jumps(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// counted is: counter.
func counted() []expr.Any { return []expr.Any{&expr.Counter{}} }

// reset is: reject with tcp reset.
func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

// prohibited is: reject with icmpx admin-prohibited.
func prohibited() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// redirect is: redirect to :PORT.
func redirect(port uint16) []expr.Any {
	const specified = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: reg, Flags: specified},
	}
}

// snat is: snat ip to ADDRESS.
func (f family) snat(a netip.Addr) []expr.Any { return f.translate(expr.NATTypeSourceNAT, a) }

// dnat is: dnat ip to ADDRESS.
func (f family) dnat(a netip.Addr) []expr.Any { return f.translate(expr.NATTypeDestNAT, a) }

func (f family) translate(t expr.NATType, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: t, Family: uint32(f.nfproto), RegAddrMin: reg},
	}
}
