// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// networkOf decides which ranges the mesh captures: those that the user gave, or else what the cluster says. Each range
// is in its canonical form, and one that another covers is left out.
func networkOf(
	spec *v1alpha1.Network, nodes []corev1.Node, services []networkingv1.ServiceCIDR,
) *v1alpha1.NetworkStatus {
	var pods, vips []string
	all := make([]*corev1.Node, len(nodes))
	for i := range nodes {
		all[i] = &nodes[i]
	}
	for _, of := range ingest.NodeRanges(all) {
		for _, p := range of {
			pods = append(pods, p.String())
		}
	}
	for i := range services {
		if services[i].DeletionTimestamp == nil {
			vips = append(vips, services[i].Spec.CIDRs...)
		}
	}
	if spec != nil && len(spec.PodCIDRs) > 0 {
		pods = cidrs(spec.PodCIDRs)
	}
	if spec != nil && len(spec.ServiceCIDRs) > 0 {
		vips = cidrs(spec.ServiceCIDRs)
	}
	return &v1alpha1.NetworkStatus{PodCIDRs: canonical(pods), ServiceCIDRs: canonical(vips)}
}

func cidrs(in []v1alpha1.CIDR) []string {
	out := make([]string, len(in))
	for i, c := range in {
		out[i] = string(c)
	}
	return out
}

// canonical sorts ranges, drops what is none and what another covers.
func canonical(in []string) []string {
	prefixes := make([]netip.Prefix, 0, len(in))
	for _, s := range in {
		if p, err := netip.ParsePrefix(s); err == nil {
			prefixes = append(prefixes, p.Masked())
		}
	}
	// A range sorts right before those inside it.
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []string
	var last netip.Prefix
	for _, p := range prefixes {
		if last.IsValid() && last.Bits() <= p.Bits() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		out = append(out, p.String())
	}
	return out
}
