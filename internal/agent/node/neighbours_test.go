// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestNeighboursFollowTheMesh: a captured pod is a neighbour of others as long as the Mesh says so, from when it
// answers mTLS until before its rules change.
func TestNeighboursFollowTheMesh(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.Equal(t, -1, f.index("neighbour"), "nobody asked for it")

	set := func(mode v1alpha1.SameNodeMode) {
		t.Helper()
		before := &v1alpha1.Mesh{}
		require.NoError(t, f.Get(context.Background(), client.ObjectKey{Name: names.Mesh}, before))
		mesh := before.DeepCopy()
		mesh.Spec.Node = &v1alpha1.Node{SameNode: mode}
		require.NoError(t, f.Patch(context.Background(), mesh, client.MergeFrom(before)))
	}
	t.Cleanup(func() { set("") })
	is := func(want string) {
		t.Helper()
		eventually.True(t, "it is a neighbour in "+want, func() bool {
			have := ""
			f.do(func() { have = f.neighbours[string(p.UID)] })
			return have == want
		})
	}
	set(v1alpha1.SameNodeDirect)
	is(path)
	require.Less(t, f.index("apply ns-cart"), f.index("neighbour ns-cart"))
	set(v1alpha1.SameNodeMTLS)
	is("")
	set(v1alpha1.SameNodeDirect)
	is(path)

	patch := client.MergeFrom(p.DeepCopy())
	p.Labels = map[string]string{names.LabelMesh: names.MeshDisabled}
	require.NoError(t, f.Patch(context.Background(), p, patch))
	f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonOptedOut)
	is("")
	require.Less(t, f.index("no neighbour ns-cart"), f.index("drain ns-cart"))
}
