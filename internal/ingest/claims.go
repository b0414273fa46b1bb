// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
)

// A pod's address is what its node's kubelet writes into its status, so a node may claim any. Claims decides which of
// them counts; see docs/design/identity.md.

// Claims of an address. The zero value: there are none.
type Claims struct {
	// holder is the pod that has the address; the zero Key if no claim counts.
	holder cluster.Key
	// closed: no claim counts, but the mesh would take what goes there for a captured pod's. Nothing goes there, rather
	// than in plaintext.
	closed bool
	// Refused are the claims that don't count and that somebody should know of, by pod.
	Refused []RefusedClaim
}

// RefusedClaim is a pod's claim to an address that another has, or that can't be its own.
type RefusedClaim struct {
	Pod     cluster.Key
	UID     string
	Node    string
	Address netip.Addr
	// Why, for people.
	Why string
}

// claim is a pod that says it has an address.
type claim struct {
	pod *corev1.Pod
	// arrived orders the claims; see cluster.Collection.Arrived.
	arrived uint64
	// captured: the pod takes mTLS, so whoever takes its address from it makes callers fall back to plaintext.
	captured bool
	// lost: its node is no more.
	lost bool
}

func (i *Ingest) claimsOf(c *memo.Ctx, addr netip.Addr) Claims {
	var all, fitting []claim
	for _, key := range i.store.Pods.By(c, cluster.ByAddress, addr.String()) {
		pod, ok := i.store.Pods.Get(c, key)
		if !ok {
			continue
		}
		cl := claim{
			pod: pod, arrived: i.store.Pods.Arrived(cluster.ByAddress, addr.String(), key),
			captured: i.takesMTLS(c, pod),
		}
		_, known := i.store.Nodes.Get(c, cluster.Key{Name: pod.Spec.NodeName})
		cl.lost = !known
		all = append(all, cl)
		if i.rangesAt.Get(c, pod.Spec.NodeName).have(addr) {
			fitting = append(fitting, cl)
		}
	}
	if len(all) == 0 {
		return Claims{}
	}
	out := Claims{}
	holder, ok := standing(fitting)
	if ok {
		out.holder = cluster.Key{Namespace: holder.Namespace, Name: holder.Name}
	}
	// Pods that the mesh has nothing to do with may have what addresses they like.
	if !slices.ContainsFunc(all, func(cl claim) bool { return cl.captured }) {
		return out
	}
	out.closed = !ok && i.inPodRanges(c, addr)
	for _, cl := range all {
		switch fits := slices.Contains(fitting, cl); {
		case !fits:
			out.Refused = append(out.Refused, cl.refused(addr, fmt.Sprintf(outsideOfItsNode, cl.pod.Spec.NodeName)))
		case cl.pod.Spec.NodeName != holder.Spec.NodeName:
			out.Refused = append(out.Refused,
				cl.refused(addr, fmt.Sprintf("pod %s on node %s has it", out.holder, holder.Spec.NodeName)))
		}
	}
	return out
}

const outsideOfItsNode = "it is outside the pod ranges of node %s: if the network plugin assigns addresses by " +
	"itself, set spec.network.podCIDRs of the Mesh"

func (cl claim) refused(addr netip.Addr, why string) RefusedClaim {
	key := cluster.Key{Namespace: cl.pod.Namespace, Name: cl.pod.Name}
	return RefusedClaim{Pod: key, UID: string(cl.pod.UID), Node: cl.pod.Spec.NodeName, Address: addr, Why: why}
}

// standing is the pod whose claim counts. A node is believed about its own pods: while an address goes from a pod that
// ends to a new one, both are there, and the later one has it. Between nodes the captured claim counts before others,
// and then the older one; a claim lasts as long as any pod of the node makes it.
func standing(claims []claim) (*corev1.Pod, bool) {
	byNode := map[string]claim{}
	for _, cl := range claims {
		node := cl.pod.Spec.NodeName
		have, ok := byNode[node]
		if !ok {
			byNode[node] = cl
			continue
		}
		captured, arrived := have.captured || cl.captured, min(have.arrived, cl.arrived)
		if have.pod.CreationTimestamp.Before(&cl.pod.CreationTimestamp) {
			have = cl
		}
		have.captured, have.arrived = captured, arrived
		byNode[node] = have
	}
	var best claim
	for _, cl := range byNode {
		if best.pod == nil || compareClaims(cl, best) < 0 {
			best = cl
		}
	}
	return best.pod, best.pod != nil
}

// compareClaims orders the claims of two nodes, the one that counts first. Those that were there when the operator
// started have no order; then the pod's age decides, which a node can't choose.
func compareClaims(a, b claim) int {
	return cmp.Or(
		compareBools(a.lost, b.lost), compareBools(b.captured, a.captured), cmp.Compare(a.arrived, b.arrived),
		a.pod.CreationTimestamp.Compare(b.pod.CreationTimestamp.Time),
		cmp.Compare(a.pod.Namespace, b.pod.Namespace), cmp.Compare(a.pod.Name, b.pod.Name),
	)
}

// compareBools puts false first.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// takesMTLS tells whether a pod is a captured member of the mesh.
func (i *Ingest) takesMTLS(c *memo.Ctx, pod *corev1.Pod) bool {
	return member.Captured(pod) && member.Is(pod, i.namespace(c, pod.Namespace))
}
