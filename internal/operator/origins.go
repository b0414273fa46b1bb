// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/member"
)

// maxGone bounds the addresses of pods that are gone and still known, for who called from them is told a while later.
const maxGone = 4096

// origins knows whose an address is: of every pod of the cluster, and of the nodes.
type origins struct {
	// find is the cache's pod of a name.
	find func(types.NamespacedName) (*corev1.Pod, bool)

	mu        sync.Mutex
	addresses map[netip.Addr]owner
	gone      []netip.Addr
	nodes     map[string]node
}

type owner struct {
	pod    types.NamespacedName
	origin counts.Origin
	gone   bool
}

type node struct {
	addresses []netip.Addr
	ranges    []netip.Prefix
}

func newOrigins(find func(types.NamespacedName) (*corev1.Pod, bool)) *origins {
	return &origins{find: find, addresses: map[netip.Addr]owner{}, nodes: map[string]node{}}
}

// pod takes in what a pod was before, and is now; nil: there was none, or is none any more.
func (o *origins) pod(before, now *corev1.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	has := addressesOf(now)
	for _, a := range has {
		o.addresses[a] = owner{
			pod: types.NamespacedName{Namespace: now.Namespace, Name: now.Name}, origin: originOf(now),
		}
	}
	for _, a := range addressesOf(before) {
		if !slices.Contains(has, a) {
			o.left(types.NamespacedName{Namespace: before.Namespace, Name: before.Name}, a)
		}
	}
}

// addressesOf a pod, nil for one that has ended, and for none.
func addressesOf(p *corev1.Pod) (out []netip.Addr) {
	if p == nil || member.Finished(p) {
		return nil
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func originOf(p *corev1.Pod) counts.Origin {
	origin := counts.Origin{Kind: counts.OriginPod, Namespace: p.Namespace}
	switch {
	case p.Spec.HostNetwork:
		return counts.Origin{Kind: counts.OriginNode}
	case member.Captured(p):
		origin.Kind = counts.OriginMember
	}
	return origin
}

// left notes an address that was a pod's and is no more. The lock is held.
func (o *origins) left(pod types.NamespacedName, a netip.Addr) {
	if was := o.addresses[a]; was.pod == pod && !was.gone {
		was.gone = true
		o.addresses[a] = was
		o.gone = append(o.gone, a)
	}
	for len(o.gone) > maxGone {
		if a := o.gone[0]; o.addresses[a].gone {
			delete(o.addresses, a)
		}
		o.gone = o.gone[1:]
	}
}

// workloadOf is what users call a pod's workload: the Deployment of its ReplicaSet, its other owner, or itself.
func workloadOf(p *corev1.Pod) counts.Workload {
	out := counts.Workload{Namespace: p.Namespace, Name: p.Name}
	if by := metav1.GetControllerOf(p); by != nil {
		out.Name = by.Name
		if hash := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; by.Kind == "ReplicaSet" && hash != "" {
			out.Name = strings.TrimSuffix(by.Name, "-"+hash)
		}
	}
	return out
}

// node takes a node in.
func (o *origins) node(n *corev1.Node) {
	var is node
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			is.addresses = append(is.addresses, addr.Unmap())
		}
	}
	for _, r := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(r); err == nil {
			is.ranges = append(is.ranges, p)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nodes[n.Name] = is
}

// of an address. What is in a node's range and no pod's is the node's own, such as its bridge's.
func (o *origins) of(address string) counts.Origin {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return counts.Origin{Kind: counts.OriginOthers}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if by, known := o.addresses[a.Unmap()]; known {
		return by.origin
	}
	if a.IsLoopback() {
		return counts.Origin{Kind: counts.OriginNode}
	}
	for _, n := range o.nodes {
		for _, own := range n.addresses {
			if own == a.Unmap() {
				return counts.Origin{Kind: counts.OriginNode}
			}
		}
		for _, r := range n.ranges {
			if r.Contains(a.Unmap()) {
				return counts.Origin{Kind: counts.OriginNode}
			}
		}
	}
	return counts.Origin{Kind: counts.OriginOutside}
}

// workload of a pod that runs on a node.
func (o *origins) workload(pod types.NamespacedName, node string) (counts.Workload, bool) {
	p, known := o.find(pod)
	if !known || p.Spec.NodeName != node || member.Finished(p) {
		return counts.Workload{}, false
	}
	return workloadOf(p), true
}
