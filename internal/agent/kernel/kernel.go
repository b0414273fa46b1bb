// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kernel is what an agent does in network namespaces, by their paths. What the rules are is the business of
// package capture; that they are for this node's proxy is said here.
package kernel

import (
	"net/netip"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// Kernel opens a namespace for each call and holds none, so that none outlives its pod.
type Kernel struct {
	host  *netns.Namespace
	proxy proxymark.Mark
	// resolvers are those that closed pods may ask, too.
	resolvers []netip.Addr
	// noPeers is why the kernel can't count connections by peer.
	noPeers error
}

// New must be called before anything enters another namespace: the agent's own is the node's.
func New(proxy proxymark.Mark, resolvers []netip.Addr) (*Kernel, error) {
	host, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	return &Kernel{host: host, proxy: proxy, resolvers: resolvers, noPeers: capture.CanLimitPeers(host)}, nil
}

func in(path string, f func(*netns.Namespace) error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return f(ns)
}

// Listening tells which ports have a listener.
func (k *Kernel) Listening(path string, ports ...uint16) (out map[uint16]bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { out, err = ns.Listening(ports...); return err })
	return out, err
}

// Apply has a pod's traffic captured.
func (k *Kernel) Apply(path string, p capture.Pod) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Apply(ns, k.pod(p)) })
}

// UpdateSets brings the ranges and probes of a captured pod up to date, and whether it is closed.
func (k *Kernel) UpdateSets(path string, p capture.Pod) error {
	return in(path, func(ns *netns.Namespace) error { return capture.UpdateSets(ns, k.pod(p)) })
}

// Verify says what differs from how it should be; nothing, if all is well.
func (k *Kernel) Verify(path string, p capture.Pod) (drift []string, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) {
		drift, err = capture.Verify(ns, k.pod(p))
		return err
	})
	return drift, err
}

// Refused is how many connections were refused, since Apply, because of the pod's limits.
func (k *Kernel) Refused(path string) (refused capture.Refused, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { refused, err = capture.ReadRefused(ns); return err })
	return refused, err
}

// CanLimitPeers says why the kernel can't count connections by peer. Pods are captured without that limit then.
func (k *Kernel) CanLimitPeers() error { return k.noPeers }

// pod is how the pod is captured on this node, by its proxy and as far as its kernel can.
func (k *Kernel) pod(p capture.Pod) capture.Pod {
	p.Proxy, p.Resolvers = k.proxy, k.resolvers
	if k.noPeers != nil {
		p.Peers = 0
	}
	return p
}

// Dialled is what a pod dialled lately, the last one first.
func (k *Kernel) Dialled(path string) (dialled []capture.Dial, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { dialled, err = capture.Dialled(ns); return err })
	return dialled, err
}

// EndPlaintext resets the connections in plaintext to ports of the pod's applications where that is refused and that
// are no probes.
func (k *Kernel) EndPlaintext(
	path string, probes []netip.AddrPort, refused func(port uint16) bool,
) (ended int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) {
		ended, err = capture.EndPlaintext(ns, k.proxy, probes, refused)
		return err
	})
	return ended, err
}

// EndProxied resets connections that pass the proxy, and tells how many there were still.
func (k *Kernel) EndProxied(path string, connections []capture.Proxied) (ended int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { ended, err = capture.EndProxied(ns, connections); return err })
	return ended, err
}

// EndOutbound ends what a closed pod has open to addresses outside of the mesh.
func (k *Kernel) EndOutbound(path string, p capture.Pod) (ended int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { ended, err = capture.EndOutbound(ns, k.pod(p)); return err })
	return ended, err
}

// Prepare must come before the proxy gets the listeners of a pod that runs already.
func (k *Kernel) Prepare(path string) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Prepare(ns, k.proxy) })
}

// Drain ends the redirect of new connections and keeps what open ones need.
func (k *Kernel) Drain(path string) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Drain(ns, k.proxy) })
}

// migrateQueues is the kernel's switch for what becomes of connections that wait to be accepted by a socket that
// closes, of several that listen on one port: 1 gives them to another of these, 0 resets them.
const migrateQueues = "net/ipv4/tcp_migrate_req"

// MigrateQueues sets that switch in a pod's network namespace, and returns how it was. Linux has it from 5.14 on.
func (k *Kernel) MigrateQueues(path, to string) (was string, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { was, err = ns.Sysctl(migrateQueues, to); return err })
	return was, err
}

// Marked is how many connections proxies have in the namespace.
func (k *Kernel) Marked(path string) (n int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { n, err = capture.Marked(ns, k.proxy); return err })
	return n, err
}

// EndMarked resets what proxies have open in the namespace.
func (k *Kernel) EndMarked(path string) (ended int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { ended, err = capture.EndMarked(ns, k.proxy); return err })
	return ended, err
}

// Remove takes all rules of ours away, and ends what the proxy has open there, which can't go on without them. Of that
// not all ends with the pod's listeners: callers on the same node have theirs.
func (k *Kernel) Remove(path string) error {
	return in(path, func(ns *netns.Namespace) error {
		_, _ = capture.EndMarked(ns, k.proxy) // what a kernel can't end stays broken, and the pod is let go all the same
		return capture.Remove(ns)
	})
}

// Has tells whether there is anything of ours in the namespace.
func (k *Kernel) Has(path string) (has bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { has, err = capture.Present(ns); return err })
	return has, err
}

// Redirects tells whether the namespace's traffic is captured.
func (k *Kernel) Redirects(path string) (redirects bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { redirects, err = capture.Redirects(ns); return err })
	return redirects, err
}

// ApplyHost sets the node's own rules.
func (k *Kernel) ApplyHost(h capture.Host) error { return capture.ApplyHost(k.host, h) }

// VerifyHost says what differs in them from how they should be.
func (k *Kernel) VerifyHost(h capture.Host) ([]string, error) { return capture.VerifyHost(k.host, h) }

// RemoveHost takes them away.
func (k *Kernel) RemoveHost() error { return capture.RemoveHost(k.host) }
