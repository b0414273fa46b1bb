// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/member"
	translate "github.com/fairway-mesh/fairway/internal/translate/node"
)

// Target is how a pod should be captured.
type Target struct {
	Pod translate.Pod
	// Ranges are the destinations that are captured.
	Ranges []netip.Prefix
	// Probes are the ports that kubelet calls.
	Probes []netip.AddrPort
	// Share is how many addresses the pod may dial.
	Share uint32
	// Peers is how many connections one address may have open to the pod.
	Peers uint32
}

// newTarget says how a pod is captured in a network namespace with these addresses.
func newTarget(pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision, path string, ips []netip.Addr) Target {
	return Target{
		Pod: translate.Pod{
			UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name,
			IPs:      ips,
			Identity: member.Identity(member.TrustDomain(mesh), pod),
			Netns:    path,
			Strict:   d.Strict,
		},
		Ranges: ranges(mesh),
		Probes: probes(pod, ips),
		Share:  uint32(max(mesh.Spec.AddressesPerPod(), 0)),
		Peers:  uint32(max(mesh.Spec.ConnectionsPerPeer(), 0)),
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

// inRanges refuses a pod none of whose addresses is in the ranges: what other pods send to it would leave in plaintext.
func inRanges(mesh *v1alpha1.Mesh, ips []netip.Addr) error {
	pods, _ := member.Networks(mesh)
	for _, ip := range ips {
		if slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return nil
		}
	}
	return fail(CauseRanges, "the cluster's network plugin hands out addresses by itself: set spec.network.podCIDRs of the Mesh to its ranges",
		fmt.Errorf("the pod's addresses %v are in none of the mesh's pod ranges %v", ips, pods))
}

// annotationConfigHash is the UID by which kubelet and the runtime know a static pod; its mirror in the API has
// another.
const annotationConfigHash = "kubernetes.io/config.hash"

// sandboxOf is how the container runtime knows a pod. Anybody may set the annotation, so it counts only together with
// the pod's namespace and name.
func sandboxOf(pod *corev1.Pod) netns.Pod {
	p := netns.Pod{Namespace: pod.Namespace, Name: pod.Name, UIDs: []string{string(pod.UID)}}
	if static := pod.Annotations[annotationConfigHash]; static != "" {
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

// probes are the addresses that kubelet calls on the pod, sorted: its probes, and its lifecycle hooks, which are
// called in the same way.
func probes(pod *corev1.Pod, ips []netip.Addr) []netip.AddrPort {
	ports := map[uint16]bool{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p != nil {
				addProbe(ports, c, p.ProbeHandler, ips)
			}
		}
		if c.Lifecycle == nil {
			continue
		}
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				addProbe(ports, c, corev1.ProbeHandler{HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}, ips)
			}
		}
	}
	out := make([]netip.AddrPort, 0, len(ports)*len(ips))
	for port := range ports {
		for _, ip := range ips {
			out = append(out, netip.AddrPortFrom(ip, port))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

func addProbe(ports map[uint16]bool, c corev1.Container, h corev1.ProbeHandler, ips []netip.Addr) {
	switch {
	case h.HTTPGet != nil && toPod(h.HTTPGet.Host, ips):
		addPort(ports, c, h.HTTPGet.Port)
	case h.TCPSocket != nil && toPod(h.TCPSocket.Host, ips):
		addPort(ports, c, h.TCPSocket.Port)
	case h.GRPC != nil:
		addPort(ports, c, intstr.FromInt32(h.GRPC.Port))
	}
}

// toPod tells whether a probe goes to the pod itself; it may name another host.
func toPod(host string, ips []netip.Addr) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && slices.Contains(ips, a.Unmap())
}

func addPort(ports map[uint16]bool, c corev1.Container, port intstr.IntOrString) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal && cmp.Or(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP {
				n = int(p.ContainerPort)
			}
		}
	}
	if n > 0 && n <= math.MaxUint16 {
		ports[uint16(n)] = true
	}
}
