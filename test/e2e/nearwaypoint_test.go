// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestCallersPreferTheWaypointOfTheirNode where its parameters say so, and go elsewhere while there is none.
func TestCallersPreferTheWaypointOfTheirNode(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	parameters := waypointReplicas(2)
	parameters.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey:    corev1.LabelHostname,
			LabelSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{names.LabelGatewayName: "mine"}},
			MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
		}},
	}}
	parameters.TrafficDistribution = corev1.ServiceTrafficDistributionPreferSameNode
	s.create(&v1alpha1.ProxyParameters{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: parameters})
	s.gateway("mine", parametersOf("mine"))
	s.service("server", "server", func(svc *corev1.Service) {
		svc.Labels = map[string]string{names.LabelUseWaypoint: "mine"}
	})
	s.captured("client", "server")
	// proxies are the waypoint's pods that run, by whether they are on the client's node.
	proxies := func(look require.TestingT) map[bool][]corev1.Pod {
		var pods corev1.PodList
		require.NoError(look, world.client.List(t.Context(), &pods, client.InNamespace(s.name),
			client.MatchingLabels{names.LabelGatewayName: "mine"}))
		out := map[bool][]corev1.Pod{}
		for _, p := range pods.Items {
			near := p.Spec.NodeName == s.pod("client").Spec.NodeName
			out[near] = append(out[near], p)
		}
		return out
	}
	// through tells the address of the waypoint's proxy that a request went through: the application sees that.
	through := func(look require.TestingT) string {
		a, err := s.get("client", "http://server/", "--no-keepalive")
		require.NoError(look, err)
		require.Equal(look, http.StatusOK, a.Status, a.Body)
		host, _, err := net.SplitHostPort(a.Remote)
		require.NoError(look, err, a.Remote)
		return host
	}
	eventually.Passes(t, "all connections stay on the node", func(look require.TestingT) {
		now := proxies(look)
		require.Len(look, now[true], 1)
		require.Len(look, now[false], 1)
		for range 10 {
			require.Equal(look, now[true][0].Status.PodIP, through(look))
		}
	})
	steady := s.steady("client", "http://server/")
	gone := proxies(t)[true][0]
	require.NoError(t, world.client.Delete(t.Context(), &gone))
	eventually.Passes(t, "the other proxy takes over", func(look require.TestingT) {
		require.NotEqual(look, gone.Status.PodIP, through(look))
	})
	require.Empty(t, steady.end().failures())
}
