// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package capture makes a pod's TCP traffic pass the node proxy: nftables rules and policy routing inside the pod's
// network namespace, and, in the node's own namespace, the rule that lets kubelet probes pass.
//
// It speaks netlink through github.com/google/nftables and not sigs.k8s.io/knftables: knftables runs the nft program,
// and the agent's image is static and has none; nor would nft run inside a pod's namespace without a process per pod.
// One netlink batch is one transaction: either all rules of a namespace change, or none.
//
// Invariants:
//   - Apply is idempotent, and so is Remove. After Remove nothing is left.
//   - What the proxy itself sends carries the node's mark (package proxymark) and is never captured. No packet that a
//     process of
//     the pod can look at carries it; nor does conntrack, which /proc shows to root without a capability.
//   - Only TCP to the mesh's own ranges is captured on the way out, so nothing else depends on the proxy.
//   - From a closed pod nothing leaves for addresses outside of these ranges but what addOutbound names.
//   - Everything that comes in over TCP is captured, except the mesh's mTLS and kubelet probes; a probe comes from the
//     node, to a port that
//     kubelet calls.
//   - Nobody dials the proxy's capture ports directly: that would lead a connection in a circle.
package capture
