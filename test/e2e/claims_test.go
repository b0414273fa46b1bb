// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A node that writes another node's pod's address into the status of its own pod gets nothing by it: callers go on
// speaking mutual TLS with the pod that has the address, and everybody hears of it.
func TestANodeCantTakeAPodsAddress(t *testing.T) {
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("victim")
	s.server("thief", apartFrom("victim"), podLabel(names.LabelMesh, names.MeshDisabled))
	s.captured("client", "victim")
	victim, thief := s.pod("victim"), s.pod("thief")
	url := "http://" + victim.Status.PodIP + ":8080/"
	s.answers("client", url, "victim")

	traffic := s.steady("client", url)
	lie := fmt.Appendf(nil, `{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, victim.Status.PodIP, victim.Status.PodIP)
	eventually.Passes(t, "an event that says whose address was taken", func(look require.TestingT) {
		// The thief's own kubelet, which is honest here, takes the lie back, at times before the operator has looked.
		require.NoError(look,
			world.client.Status().Patch(t.Context(), thief.DeepCopy(), client.RawPatch("application/merge-patch+json", lie)))
		var events eventsv1.EventList
		require.NoError(look, world.client.List(t.Context(), &events, client.InNamespace(s.name)))
		require.True(look, slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Reason == v1alpha1.MeshReasonAddressConflict && e.Regarding.Name == thief.Name &&
				strings.Contains(e.Note, victim.Status.PodIP)
		}), "%v", events.Items)
	})
	eventually.Passes(t, "the Mesh says again that addresses are ready", func(look require.TestingT) {
		mesh := &v1alpha1.Mesh{}
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, mesh))
		require.True(look, meta.IsStatusConditionTrue(mesh.Status.Conditions, v1alpha1.MeshConditionAddressesReady),
			"%v", mesh.Status.Conditions)
	})
	total := traffic.end()
	require.Empty(t, total.failures(), "the victim is strict: %v", total)
	require.NotZero(t, total.of("victim"))
}
