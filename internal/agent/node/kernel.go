// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// kernel is the real Kernel. It opens a namespace for each call and holds none, so that none outlives its pod.
type kernel struct {
	host  *netns.Namespace
	proxy proxymark.Mark
	// noPeers is why the kernel can't count connections by peer.
	noPeers error
}

// newKernel must be called before anything enters another namespace: the agent's own is the node's.
func newKernel(proxy proxymark.Mark) (*kernel, error) {
	host, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	return &kernel{host: host, proxy: proxy, noPeers: capture.CanLimitPeers(host)}, nil
}

func in(path string, f func(*netns.Namespace) error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return f(ns)
}

func (k *kernel) Listening(path string, ports ...uint16) (out map[uint16]bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { out, err = ns.Listening(ports...); return err })
	return out, err
}

func (k *kernel) Apply(path string, p capture.Pod) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Apply(ns, k.pod(p)) })
}

func (k *kernel) UpdateSets(path string, p capture.Pod) error {
	return in(path, func(ns *netns.Namespace) error { return capture.UpdateSets(ns, k.pod(p)) })
}

func (k *kernel) Verify(path string, p capture.Pod) (drift []string, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) {
		drift, err = capture.Verify(ns, k.pod(p))
		return err
	})
	return drift, err
}

func (k *kernel) Refused(path string) (refused capture.Refused, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { refused, err = capture.ReadRefused(ns); return err })
	return refused, err
}

func (k *kernel) CanLimitPeers() error { return k.noPeers }

// pod is how the pod is captured by this node's proxy, as far as its kernel can.
func (k *kernel) pod(p capture.Pod) capture.Pod {
	p.Proxy = k.proxy
	if k.noPeers != nil {
		p.Peers = 0
	}
	return p
}

func (k *kernel) Dialled(path string) (dialled []netip.AddrPort, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { dialled, err = capture.Dialled(ns); return err })
	return dialled, err
}

func (k *kernel) EndPlaintext(path string, probes []netip.AddrPort) (ended int, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { ended, err = capture.EndPlaintext(ns, probes); return err })
	return ended, err
}

func (k *kernel) Prepare(path string) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Prepare(ns, k.proxy) })
}

func (k *kernel) Drain(path string) error {
	return in(path, func(ns *netns.Namespace) error { return capture.Drain(ns, k.proxy) })
}

func (k *kernel) Remove(path string) error { return in(path, capture.Remove) }

func (k *kernel) Has(path string) (has bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { has, err = capture.Present(ns); return err })
	return has, err
}

func (k *kernel) Redirects(path string) (redirects bool, err error) {
	err = in(path, func(ns *netns.Namespace) (err error) { redirects, err = capture.Redirects(ns); return err })
	return redirects, err
}

func (k *kernel) ApplyHost(h capture.Host) error { return capture.ApplyHost(k.host, h) }

func (k *kernel) VerifyHost(h capture.Host) ([]string, error) { return capture.VerifyHost(k.host, h) }

func (k *kernel) RemoveHost() error { return capture.RemoveHost(k.host) }
