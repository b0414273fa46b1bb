// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

func twoReplicas(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(2)) }

// behindItsWaypoint is a Service named server, with pods of that name, behind a waypoint of its own. That has one
// proxy, since each counts, and looks for what is near, by itself.
func (s *space) behindItsWaypoint(change ...func(*corev1.Service)) {
	s.t.Helper()
	s.gatewayOfOne("mine")
	s.service("server", "server", append(change, func(svc *corev1.Service) {
		svc.Labels = map[string]string{names.LabelUseWaypoint: "mine"}
	})...)
	s.captured("client", "server")
	eventually.Passes(s.t, "an answer through the waypoint", func(look require.TestingT) {
		a, err := s.get("client", "http://server/")
		require.NoError(look, err)
		require.Equal(look, http.StatusOK, a.Status)
		require.NotEmpty(look, a.Headers.Get("X-Forwarded-Client-Cert"))
	})
}

// answering are the pods that answer requests of a client, each with how many.
func (s *space) answering(n int, flags ...string) map[string]int {
	s.t.Helper()
	out := map[string]int{}
	for range n {
		a, err := s.get("client", "http://server/", flags...)
		require.NoError(s.t, err)
		require.Equal(s.t, http.StatusOK, a.Status, a.Body)
		out[a.Pod]++
	}
	return out
}

// TestTrafficPolicy: what a policy says holds from when its status says so, and no longer than the policy is there.
func TestTrafficPolicy(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server", twoReplicas)
	s.behindItsWaypoint()
	policy := &v1alpha1.TrafficPolicy{ObjectMeta: metav1.ObjectMeta{Name: "server"}}
	// says writes the policy, and waits until its proxies have it.
	says := func(spec v1alpha1.TrafficPolicySpec) {
		t.Helper()
		spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{
			LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "server"},
		}}
		if gone(t, policy, s.name, policy.Name) {
			policy.Spec = spec
			s.create(policy)
		} else {
			edit(t, policy, func() { policy.Spec = spec })
		}
		s.policyProgrammed(policy)
	}
	const n = 20
	says(v1alpha1.TrafficPolicySpec{Faults: &v1alpha1.Faults{Abort: &v1alpha1.FaultAbort{Status: http.StatusTeapot}}})
	require.Zero(t, s.many("client", n, "http://server/").of("server"), "all are refused")

	says(v1alpha1.TrafficPolicySpec{RateLimit: &v1alpha1.RateLimit{
		Local: &v1alpha1.LocalRateLimit{Requests: 2, Unit: v1alpha1.RateLimitHour},
	}})
	passed := s.many("client", n, "http://server/").of("server")
	require.Contains(t, []int{2, 3}, passed, "a worker may pass one more by what was before")

	says(v1alpha1.TrafficPolicySpec{LoadBalancing: &v1alpha1.LoadBalancing{
		Type: v1alpha1.LoadBalancingMaglev, HashBy: &v1alpha1.HashBy{Header: &v1alpha1.HashHeader{Name: "X-User"}},
	}})
	reached := map[string]int{}
	for user := range 8 {
		flag := fmt.Sprint("x-user:", user)
		one := s.answering(4, "-H", flag)
		require.Len(t, one, 1, "one user stays with one pod: %v", one)
		for pod := range one {
			reached[pod]++
		}
	}
	require.Len(t, reached, 2, "users are spread: %v", reached)

	require.NoError(t, world.client.Delete(t.Context(), policy))
	eventually.Passes(t, "no policy", func(look require.TestingT) {
		require.Empty(look, s.many("client", n, "http://server/").failures())
	})
}

// TestAWaypointSendsToItsOwnNode where a Service prefers that, and elsewhere as soon as there is nothing.
func TestAWaypointSendsToItsOwnNode(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server", apartFrom("server"), twoReplicas) // one on each of two nodes
	s.behindItsWaypoint(func(svc *corev1.Service) {
		svc.Spec.TrafficDistribution = new(corev1.ServiceTrafficDistributionPreferSameNode)
	})
	var waypoints corev1.PodList
	require.NoError(t, world.client.List(t.Context(), &waypoints, client.InNamespace(s.name),
		client.MatchingLabels{names.LabelGatewayName: "mine"}))
	require.Len(t, waypoints.Items, 1)
	// near is the pod on the waypoint's node.
	near := func() string {
		for _, p := range s.pods("server") {
			if p.Spec.NodeName == waypoints.Items[0].Spec.NodeName {
				return p.Name
			}
		}
		return ""
	}
	nearOnly := func(look require.TestingT) {
		now := near()
		require.NotEmpty(look, now)
		got := s.answering(10)
		require.Equal(look, 10, got[now], "%v", got)
	}
	eventually.Passes(t, "all requests stay on the node", nearOnly)
	steady := s.steady("client", "http://server/")
	gone := near()
	require.NoError(t, world.client.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: s.name, Name: gone,
	}}))
	eventually.Passes(t, "another pod answers", func(look require.TestingT) {
		require.Zero(look, s.answering(4)[gone])
	})
	eventually.Passes(t, "all requests stay on the node again", nearOnly)
	require.Empty(t, steady.end().failures())
}
