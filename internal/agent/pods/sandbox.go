// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
)

// sandboxOf is how the container runtime knows a pod. Anybody may set the annotation, so it counts only together with
// the pod's namespace and name.
func sandboxOf(pod *corev1.Pod) netns.Pod {
	p := netns.Pod{Namespace: pod.Namespace, Name: pod.Name, UIDs: []string{string(pod.UID)}}
	if static := pod.Annotations[names.AnnotationStatic]; static != "" {
		p.UIDs = append(p.UIDs, static)
	}
	return p
}

// podIPs are the pod's addresses, the primary one first.
func podIPs(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	add := func(s string) {
		if a, err := netip.ParseAddr(s); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	add(pod.Status.PodIP)
	for _, ip := range pod.Status.PodIPs {
		add(ip.IP)
	}
	return out
}
