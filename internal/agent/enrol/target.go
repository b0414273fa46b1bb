// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// Target is how a pod should be captured.
type Target struct {
	Pod translatenode.Pod
	// ranges are the destinations that are captured.
	ranges []netip.Prefix
	// probes are the ports that kubelet calls.
	probes []netip.AddrPort
	// Share is how many addresses the pod may dial.
	Share uint32
	// Peers is how many connections one address may have open to the pod.
	Peers uint32
	// closed keeps the pod from addresses outside of ranges.
	closed bool
}

// NewTarget says how a pod is captured in a network namespace with these addresses.
func NewTarget(pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision, path string, ips []netip.Addr) Target {
	return Target{
		Pod: translatenode.Pod{
			UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name,
			IPs:      ips,
			Identity: member.Identity(member.TrustDomain(mesh), pod),
			Netns:    path,
			Strict:   d.Strict,
			Except:   d.Except,

			Neighbours: mesh.Spec.SameNodeDirect(),
		},
		ranges: ranges(mesh),
		probes: Probes(pod, ips),
		Share:  uint32(max(mesh.Spec.AddressesPerPod(), 0)),
		Peers:  uint32(max(mesh.Spec.ConnectionsPerPeer(), 0)),
		closed: d.Closed,
	}
}

// ranges are what the operator found out, sorted, each once.
func ranges(mesh *v1alpha1.Mesh) []netip.Prefix {
	pods, services := member.Networks(mesh)
	out := slices.Concat(pods, services)
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(out)
}

// InRanges refuses a pod none of whose addresses is in the ranges: what other pods send to it would leave in plaintext.
func InRanges(mesh *v1alpha1.Mesh, ips []netip.Addr) error {
	pods, _ := member.Networks(mesh)
	for _, ip := range ips {
		if slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return nil
		}
	}
	return Fail(causeRanges, "if the network plugin assigns addresses by itself, set spec.network.podCIDRs of the Mesh "+
		"to its ranges",
		fmt.Errorf("the pod's addresses %v are in none of the mesh's pod ranges %v", ips, pods))
}
