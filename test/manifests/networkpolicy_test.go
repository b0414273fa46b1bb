// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestNetworkPolicies pins what the policies let through, as docs/security.md has it. Whether the mesh works on a
// network that enforces them is for the end-to-end tests.
func TestNetworkPolicies(t *testing.T) {
	anyone := []networkingv1.NetworkPolicyPeer(nil)
	operator := map[string]string{"app.kubernetes.io/name": "fairway", names.LabelComponent: names.ComponentOperator}
	waypoint := map[string]string{"app.kubernetes.io/name": "fairway", names.LabelComponent: names.ComponentWaypoint}
	selects := func(labels map[string]string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: labels}
	}

	var deployment appsv1.Deployment
	read(t, "manager/manager.yaml", &deployment)
	require.Equal(t, operator, deployment.Spec.Selector.MatchLabels)
	ports := deployment.Spec.Template.Spec.Containers[0].Ports
	got := allowed(t, "manager/network_policy.yaml", operator, ports)
	require.Equal(t, map[int32][]networkingv1.NetworkPolicyPeer{
		names.PortXDS:             anyone,
		names.PortCertificates:    anyone,
		names.PortPeers:           {{PodSelector: selects(operator)}},
		names.PortOperatorMetrics: {{NamespaceSelector: &metav1.LabelSelector{}}},
	}, got)
	for _, p := range ports {
		if p.ContainerPort != names.PortOperatorHealth { // for kubelet, who is on the pod's own node
			require.Contains(t, got, p.ContainerPort, "nobody reaches port %s", p.Name)
		}
	}

	require.Equal(t, map[int32][]networkingv1.NetworkPolicyPeer{
		names.PortMTLS:  anyone,
		names.PortAgent: {{NamespaceSelector: selects(map[string]string{corev1.LabelMetadataName: "monitoring"})}},
	}, allowed(t, "samples/networkpolicy_waypoint.yaml", waypoint, nil))
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", file))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(raw, into))
}

// allowed reads a policy of ingress for certain pods, and returns from whom it lets what reach which of their ports.
func allowed(
	t *testing.T, file string, pods map[string]string, named []corev1.ContainerPort,
) map[int32][]networkingv1.NetworkPolicyPeer {
	t.Helper()
	var policy networkingv1.NetworkPolicy
	read(t, file, &policy)
	require.Equal(t, metav1.LabelSelector{MatchLabels: pods}, policy.Spec.PodSelector)
	require.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, policy.Spec.PolicyTypes)
	out := map[int32][]networkingv1.NetworkPolicyPeer{}
	for _, rule := range policy.Spec.Ingress {
		require.NotEmpty(t, rule.Ports, "a rule without ports is for all of them")
		for _, p := range rule.Ports {
			number := p.Port.IntVal
			for _, c := range named {
				if c.Name == p.Port.StrVal {
					number = c.ContainerPort
				}
			}
			require.NotZero(t, number, "no container has a port %s", p.Port.StrVal)
			require.NotContains(t, out, number, "two rules for port %d", number)
			out[number] = rule.From
		}
	}
	return out
}
