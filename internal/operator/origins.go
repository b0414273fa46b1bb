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

// origins knows whose an address is, and which workload a pod is of: every pod of the cluster, and the nodes.
type origins struct {
	mu        sync.Mutex
	addresses map[netip.Addr]owner
	pods      map[types.NamespacedName]placed
	gone      []netip.Addr
	nodes     map[string]node
}

type owner struct {
	pod    types.NamespacedName
	origin counts.Origin
	gone   bool
}

type placed struct {
	node      string
	workload  counts.Workload
	addresses []netip.Addr
}

type node struct {
	addresses []netip.Addr
	ranges    []netip.Prefix
}

func newOrigins() *origins {
	return &origins{
		addresses: map[netip.Addr]owner{}, pods: map[types.NamespacedName]placed{}, nodes: map[string]node{},
	}
}

// pod takes a pod in, the last time when it is gone.
func (o *origins) pod(p *corev1.Pod, gone bool) {
	key := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.pods[key].addresses
	defer func() { o.left(key, before) }()
	delete(o.pods, key)
	if gone || member.Finished(p) {
		return
	}
	is := placed{node: p.Spec.NodeName, workload: workloadOf(p)}
	origin := counts.Origin{Kind: counts.OriginPod, Namespace: p.Namespace}
	switch {
	case p.Spec.HostNetwork:
		origin = counts.Origin{Kind: counts.OriginNode}
	case member.Captured(p):
		origin.Kind = counts.OriginMember
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			is.addresses = append(is.addresses, a.Unmap())
			o.addresses[a.Unmap()] = owner{pod: key, origin: origin}
		}
	}
	o.pods[key] = is
}

// left notes the addresses that were a pod's and are no more. The lock is held.
func (o *origins) left(pod types.NamespacedName, before []netip.Addr) {
	for _, a := range before {
		if was := o.addresses[a]; was.pod == pod && !was.gone && !slices.Contains(o.pods[pod].addresses, a) {
			was.gone = true
			o.addresses[a] = was
			o.gone = append(o.gone, a)
		}
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
	o.mu.Lock()
	defer o.mu.Unlock()
	p, known := o.pods[pod]
	return p.workload, known && p.node == node
}
