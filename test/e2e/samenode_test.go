// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// onNode runs a Deployment's pods on a node.
func onNode(name string) option {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.NodeName = name }
}

// onOneNode sets how connections between pods of one node go, until the test ends.
func onOneNode(t *testing.T, mode v1alpha1.SameNodeMode) {
	t.Helper()
	set := func(value string) {
		mesh := &v1alpha1.Mesh{}
		mesh.Name = names.Mesh
		require.NoError(t, world.client.Patch(context.Background(), mesh, client.RawPatch("application/merge-patch+json",
			fmt.Appendf(nil, `{"spec":{"node":{"sameNode":%s}}}`, value))))
	}
	set(fmt.Sprintf("%q", mode))
	t.Cleanup(func() { set("null") })
}

// TestPodsOfOneNode: where the Mesh says so, pods of one node get to each other without mTLS, as long as nothing guards
// them; and nobody gets past a policy for it.
func TestPodsOfOneNode(t *testing.T) {
	onOneNode(t, v1alpha1.SameNodeDirect)
	s := enrolled(t)
	node := onNode(slices.Sorted(maps.Keys(nodePods(t)))[0])
	s.client("stranger", node)
	s.client("friend", node)
	s.server("app", node)
	s.service("app", "app")
	s.captured("stranger", "friend", "app")
	near := func(from string) {
		t.Helper()
		eventually.Passes(t, from+" passes the proxy once", func(look require.TestingT) {
			start := since()
			_, err := s.get(from, "http://app/")
			require.NoError(look, err)
			pod := s.pod(from)
			lines, err := nodeLog(t.Context(), start, &pod)
			require.NoError(look, err)
			require.True(look, slices.ContainsFunc(lines, func(l logLine) bool {
				return l.str("neighbour") == identityOf(s, "app") && l.str("source") == identityOf(s, from)
			}), "%v", lines)
		})
	}
	near("stranger")
	near("friend")

	deny := policyFor(networkDeny)
	s.create(deny)
	s.enforced(deny)
	s.refuses("stranger", "http://app/")
	start := since()
	s.answers("friend", "http://app/", "app")
	overMTLS(s, start, s.pod("app"), identityOf(s, "friend"), identityOf(s, "app"))

	require.NoError(t, world.client.Delete(t.Context(), deny))
	near("stranger")
	// Another pod is another neighbour, whatever its address is.
	s.scale("app", 0)
	eventually.Passes(t, "the pod is gone", func(look require.TestingT) {
		var left corev1.PodList
		require.NoError(look, world.client.List(t.Context(), &left, client.InNamespace(s.name),
			client.MatchingLabels{"app": "app"}))
		require.Empty(look, left.Items)
	})
	s.refuses("stranger", "http://app/")
	s.scale("app", 1)
	s.captured("app")
	near("stranger")
}
