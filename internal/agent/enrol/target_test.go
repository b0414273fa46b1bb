// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
)

func TestProbes(t *testing.T) {
	get := func(host string, port intstr.IntOrString) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Port: port}}
	}
	always := corev1.ContainerRestartPolicyAlways
	ip := netip.MustParseAddr("10.244.1.5")
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{
			Name: "sidecar", RestartPolicy: &always,
			StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
				TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(7000)},
			}},
		}},
		Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 8080},
				{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			},
			LivenessProbe:  &corev1.Probe{ProbeHandler: get("", intstr.FromString("http"))},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090}}},
			StartupProbe:   &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}},
			Lifecycle: &corev1.Lifecycle{
				PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8081), Host: ip.String()}},
			},
		}, {
			LivenessProbe:  &corev1.Probe{ProbeHandler: get("192.0.2.1", intstr.FromInt32(1234))},
			ReadinessProbe: &corev1.Probe{ProbeHandler: get("", intstr.FromString("dns"))},
			StartupProbe:   &corev1.Probe{ProbeHandler: get("", intstr.FromString("8082"))},
		}},
	}}
	var want []netip.AddrPort
	for _, p := range []uint16{7000, 8080, 8081, 8082, 9090} {
		want = append(want, netip.AddrPortFrom(ip, p))
	}
	require.Equal(t, want, Probes(pod, []netip.Addr{ip}))
	require.Empty(t, Probes(&corev1.Pod{}, []netip.Addr{ip}))
}

func TestTarget(t *testing.T) {
	mesh := &v1alpha1.Mesh{
		Spec: v1alpha1.MeshSpec{TrustDomain: "example.org"},
		Status: v1alpha1.MeshStatus{Network: &v1alpha1.NetworkStatus{
			PodCIDRs:     []string{"10.244.0.0/16"},
			ServiceCIDRs: []string{"10.96.0.0/16", "nonsense", "10.244.0.0/16", "fd00::1/64"},
		}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Spec: corev1.PodSpec{ServiceAccountName: "cart"},
	}
	ips := []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00::5")}
	have := NewTarget(pod, mesh, member.Decision{Strict: true}, "/var/run/netns/x", ips)
	require.Equal(t, "spiffe://example.org/ns/shop/sa/cart", have.Pod.Identity)
	require.Equal(t, ips, have.Pod.IPs)
	require.True(t, have.Pod.Strict)
	require.Equal(t, []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/64"),
	}, have.ranges)
}
