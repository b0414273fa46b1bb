// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// Pod is how a pod is captured.
type Pod struct {
	// Proxy is the mark of the node's proxy.
	Proxy proxymark.Mark
	// Ranges are the destinations that are captured: the pod and service ranges of the cluster. They may overlap.
	Ranges []netip.Prefix
	// Probes are the pod's addresses with ports that kubelet calls: what comes to them from the probes' source passes the
	// proxy by.
	Probes []netip.AddrPort
	// Share is how many addresses of each IP family the pod may dial within names.DialledTime. Zero: as many as without
	// a setting of the Mesh.
	Share uint32
	// Peers is how many connections one address may have open to the pod. Zero: any number, which is for kernels that
	// can't count them (CanLimitPeers).
	Peers uint32
	// Closed keeps the pod from all addresses outside of Ranges but Resolvers, whose DNS it may ask.
	Closed    bool
	Resolvers []netip.Addr
}

// Apply captures the pod in a namespace, or brings its capture up to date. Connections that exist go on as they are.
func Apply(ns *netns.Namespace, p Pod) error {
	c, err := connectFor(ns, p.Proxy)
	if err != nil {
		return err
	}
	// Routing comes first: without rules it does nothing, and rules without it would lose the answers.
	if err := inPolicyRouting(ns, ensureRouting); err != nil {
		return err
	}
	addresses, err := addresses(ns)
	if err != nil {
		return err
	}
	if err := p.ruleset(addresses).apply(c); err != nil {
		return fmt.Errorf("apply nftables rules in %s: %w", ns.Path(), err)
	}
	return nil
}

// UpdateSets changes what the sets of an already captured pod say: the captured ranges, the probes, and where else the
// pod may send. Nothing else is touched.
func UpdateSets(ns *netns.Namespace, p Pod) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	if err := p.ruleset(nil).applySets(c); err != nil {
		return fmt.Errorf("update the sets of the capture in %s: %w", ns.Path(), err)
	}
	return nil
}

// Prepare comes before the proxy gets the listeners of a pod whose processes run already: from then on the proxy sends
// in the namespace, and nobody may see its mark. Nothing is captured yet.
func Prepare(ns *netns.Namespace, proxy proxymark.Mark) error {
	// The same policy routing as later: the proxy may hand connections to the application that come to its ports.
	if err := inPolicyRouting(ns, ensureRouting); err != nil {
		return err
	}
	return Drain(ns, proxy)
}

// Drain captures no new connections and lets those through the proxy go on. The proxy must keep the pod's listeners
// until Remove.
func Drain(ns *netns.Namespace, proxy proxymark.Mark) error {
	c, err := connectFor(ns, proxy)
	if err != nil {
		return err
	}
	if err := drainRuleset(proxy).apply(c); err != nil {
		return fmt.Errorf("drain the capture in %s: %w", ns.Path(), err)
	}
	return nil
}

// Remove ends the capture and leaves nothing behind. It breaks connections through the proxy: the kernel stops
// translating addresses when the last chain that could is gone. Drain spares them.
func Remove(ns *netns.Namespace) error {
	c, err := connect(ns)
	if err != nil {
		return err
	}
	if err := removeTable(c); err != nil {
		return fmt.Errorf("remove nftables rules in %s: %w", ns.Path(), err)
	}
	return inPolicyRouting(ns, removeRouting)
}

// Verify compares the namespace with how it should be, and says for people what differs.
func Verify(ns *netns.Namespace, p Pod) (drift []string, err error) {
	c, err := connect(ns)
	if err != nil {
		return nil, err
	}
	addresses, err := addresses(ns)
	if err != nil {
		return nil, err
	}
	drift, err = p.ruleset(addresses).drift(c)
	if err != nil {
		return nil, fmt.Errorf("read nftables rules in %s: %w", ns.Path(), err)
	}
	err = inPolicyRouting(ns, func(h *netlink.Handle, f int) error {
		ok, err := hasRouting(h, f)
		if err == nil && !ok {
			drift = append(drift, "policy routing of answers is missing")
		}
		return err
	})
	return drift, err
}

func connect(ns *netns.Namespace) (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(ns.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s (needs CAP_NET_ADMIN and CAP_SYS_ADMIN): %w", ns.Path(), err)
	}
	return c, nil
}

// connectFor is connect for rules that let the proxy pass: without a mark they would let everybody.
func connectFor(ns *netns.Namespace, proxy proxymark.Mark) (*nftables.Conn, error) {
	if proxy.IsZero() {
		return nil, errors.New("capture needs the mark of the node's proxy")
	}
	return connect(ns)
}

// ruleset of a pod's namespace, whose own addresses are given. Chains run in the order in which they stand here.
func (p Pod) ruleset(own []netip.Addr) *ruleset {
	r := newRuleset()
	ranges := make([]*nftables.Set, len(families))
	for i, f := range families {
		ranges[i] = r.addSet(&nftables.Set{Name: "ranges" + f.suffix, KeyType: f.key, Interval: true}, intervals(f, p.Ranges))
	}
	probes := make([]*nftables.Set, len(families))
	for i, f := range families {
		probes[i] = r.addProbes(f, p.Probes)
	}
	r.addShare(p.Proxy, ranges, p.Share)
	if p.Peers > 0 {
		r.addPeers(probes, p.Peers)
	}
	r.addAnswers(p.Proxy)
	r.addOutbound(p, ranges)
	r.addBefore(p, own)

	var out [][]expr.Any
	for _, f := range families {
		if i := slices.IndexFunc(own, f.has); i >= 0 {
			out = append(out, rule(of(p.Proxy), f.to(f.application), f.dnat(own[i])))
		}
	}
	out = append(out,
		rule(of(p.Proxy), returns()),
		rule(toLoopback(), returns()),
	)
	in := [][]expr.Any{
		rule(fromLoopback(), returns()),
	}
	for i, f := range families {
		out = append(out, rule(syn(), f.toSet(ranges[i]), redirect(names.PortOutbound)))
		// Whoever pretends to be kubelet gets no further than kubelet does.
		in = append(in, rule(f.from(f.probe), f.toPortSet(probes[i]), returns()))
	}
	in = append(in,
		rule(tcpPort(names.PortMTLS), returns()),
		rule(syn(), local(false), redirect(names.PortInbound)),
	)
	r.addCapture(out, in)
	r.addMidway(p.Proxy, ranges, probes)
	return r
}

// addBefore adds what looks at packets before addresses are translated, one chain for each way, which leads to the
// branches that are there already. Each packet of an open connection goes through the chains, so they ask it as little
// as they can: only answers and what leaves for outside of the ranges are about other packets than opening ones.
func (r *ruleset) addBefore(p Pod, own []netip.Addr) {
	in, out := notOpening(fromLoopback()), [][]expr.Any{
		rule(jumps(chainAnswers)),
		rule(notToLoopback(), jumps(chainOutbound)),
	}
	out = append(out, opening()...)
	// Nobody reaches the capture ports but through a redirect, which happens after these chains. Others may be clients'
	// ports too, which the kernel picks where it translates.
	for _, port := range []uint16{names.PortOutbound, names.PortInbound} {
		in = append(in, rule(tcpPort(port), reset()))
		out = append(out, rule(toLoopback(), tcpPort(port), reset()))
	}
	// A peer asks a pod's proxy for a port of the pod. That of mTLS itself would lead into the proxy once more.
	for _, f := range families {
		if i := slices.IndexFunc(own, f.has); i >= 0 {
			out = append(out, rule(of(p.Proxy), toLoopback(), f.notFrom(own[i]), tcpPort(names.PortMTLS), reset()))
		}
	}
	if p.Peers > 0 {
		in = append(in, rule(jumps(chainPeers)))
	}
	out = append(out, rule(jumps(chainShare)))
	r.addChain("in", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityMangle, in...)
	r.addOut(out...)
}

// addOut adds the first chain that a packet passes which is sent in the pod. One that it marks is routed anew.
func (r *ruleset) addOut(rules ...[]expr.Any) {
	r.addChain("out", nftables.ChainTypeRoute, nftables.ChainHookOutput, *nftables.ChainPriorityMangle, rules...)
}

// drainRuleset is what connections need that are captured already.
func drainRuleset(proxy proxymark.Mark) *ruleset {
	r := newRuleset()
	r.addAnswers(proxy)
	r.addOut(rule(jumps(chainAnswers)))
	r.addCapture(nil, nil)
	r.addLastOut(proxy)
	return r
}

// chainAnswers is the chain that knows an application's answers.
const chainAnswers = "answers"

// addAnswers brings an application's answers back to the proxy: it connects to the application with the client's
// address as source, so they would leave to the client.
func (r *ruleset) addAnswers(proxy proxymark.Mark) {
	r.addBranch(chainAnswers,
		rule(of(proxy), toLoopback(), setCtMark(names.MarkAnswered)),
		rule(reply(), ctMark(names.MarkAnswered), setMark(names.MarkReply)),
	)
}

// addLastOut adds the last chain that a packet passes which is sent in the pod, after addresses are translated. Of what
// the proxy sends it takes the mark off, which no rule has to know any more, and lets it pass: sockets that look at
// packets (AF_PACKET, raw ones, filters) see it only after this.
func (r *ruleset) addLastOut(proxy proxymark.Mark, rules ...[]expr.Any) {
	hidden := rule(of(proxy), setMark(0), setPriority(0), returns())
	r.addChain("last-out", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest+1,
		append([][]expr.Any{hidden}, rules...)...)
}

// chainOut is the chain that captures what a pod sends.
const chainOut = "capture-out"

func (r *ruleset) addCapture(out, in [][]expr.Any) {
	r.addChain(chainOut, nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest, out...)
	r.addChain("capture-in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, in...)
}

// addresses of the namespace itself, the first one of each family being the pod's.
func addresses(ns *netns.Namespace) ([]netip.Addr, error) {
	var out []netip.Addr
	err := inPolicyRouting(ns, func(h *netlink.Handle, family int) error {
		list, err := h.AddrList(nil, family)
		for _, a := range list {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Scope == int(netlink.SCOPE_UNIVERSE) && !ip.Unmap().IsLoopback() {
				out = append(out, ip.Unmap())
			}
		}
		return err
	})
	return out, err
}

// inPolicyRouting runs f for each IP version that the namespace has.
func inPolicyRouting(ns *netns.Namespace, f func(h *netlink.Handle, family int) error) error {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", ns.Path(), err)
	}
	defer h.Close()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		err := f(h, family)
		// IPv6 may be switched off.
		if family == netlink.FAMILY_V6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) ||
			errors.Is(err, unix.EACCES)) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("policy routing in %s: %w", ns.Path(), err)
		}
	}
	return nil
}

func answerRule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = family
	r.Priority = names.RulePriority
	r.Mark = names.MarkReply
	r.Table = names.RouteTable
	return r
}

func answerRoute(h *netlink.Handle, family int) (*netlink.Route, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	dst := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == netlink.FAMILY_V6 {
		dst = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Family:    family,
		Table:     names.RouteTable,
		Type:      unix.RTN_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Dst:       dst,
	}, nil
}

func ensureRouting(h *netlink.Handle, family int) error {
	route, err := answerRoute(h, family)
	if err != nil {
		return err
	}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	if err := h.RuleAdd(answerRule(family)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule: %w", err)
	}
	return nil
}

func removeRouting(h *netlink.Handle, family int) error {
	if err := h.RuleDel(answerRule(family)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rule: %w", err)
	}
	route, err := answerRoute(h, family)
	if err != nil {
		return err
	}
	if err := h.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove route: %w", err)
	}
	return nil
}

func hasRouting(h *netlink.Handle, family int) (bool, error) {
	rules, err := h.RuleListFiltered(
		family, answerRule(family), netlink.RT_FILTER_PRIORITY|netlink.RT_FILTER_MARK|netlink.RT_FILTER_TABLE)
	if err != nil || len(rules) == 0 {
		return false, err
	}
	routes, err := h.RouteListFiltered(family, &netlink.Route{Table: names.RouteTable, Type: unix.RTN_LOCAL},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	return len(routes) > 0, err
}
