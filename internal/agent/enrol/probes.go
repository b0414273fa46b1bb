// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Probes are the addresses that kubelet calls on the pod, sorted: its probes, and its lifecycle hooks, which are
// called in the same way.
func Probes(pod *corev1.Pod, ips []netip.Addr) []netip.AddrPort {
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
