// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

func TestNetworkOf(t *testing.T) {
	nodes := []corev1.Node{
		{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:1::/64"}}},
		{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}}},
		{}, // a node whose CNI hands out addresses by itself
		// One whose kubelet wants the traffic of others.
		{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
			Spec:       corev1.NodeSpec{PodCIDRs: []string{"0.0.0.0/0", "::/0"}},
		},
	}
	services := []networkingv1.ServiceCIDR{{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}}
	for _, tc := range []struct {
		name           string
		spec           *v1alpha1.Network
		pods, services []string
	}{
		{"found", nil, []string{"10.244.0.0/24", "10.244.1.0/24", "fd00:1::/64"}, []string{"10.96.0.0/16"}},
		{
			"given, one inside the other, not in canonical form",
			&v1alpha1.Network{PodCIDRs: []v1alpha1.CIDR{"10.1.2.0/24", "10.1.9.9/16"}},
			[]string{"10.1.0.0/16"},
			[]string{"10.96.0.0/16"},
		},
		{
			"services given", &v1alpha1.Network{ServiceCIDRs: []v1alpha1.CIDR{"172.30.0.0/16"}},
			[]string{"10.244.0.0/24", "10.244.1.0/24", "fd00:1::/64"},
			[]string{"172.30.0.0/16"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := networkOf(tc.spec, nodes, services)
			require.Equal(t, tc.pods, got.PodCIDRs)
			require.Equal(t, tc.services, got.ServiceCIDRs)
		})
	}
	require.Empty(t, networkOf(nil, nil, nil).PodCIDRs)
}

func TestEnumerate(t *testing.T) {
	require.Equal(t, "a, b", enumerate([]string{"a", "b"}))
	require.Equal(t, "1, 2, 3, 4, 5 and 2 more", enumerate([]string{"1", "2", "3", "4", "5", "6", "7"}))
}
