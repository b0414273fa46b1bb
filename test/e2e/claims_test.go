// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A node that writes another node's pod's address into the status of its own pod gets nothing by it: callers go on
// speaking mutual TLS with the pod that has the address, and everybody hears of it.
func TestANodeCantTakeAPodsAddress(t *testing.T) {
	g := NewWithT(t)
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("victim")
	s.server("thief", apartFrom("victim"), podLabel(names.LabelMesh, names.MeshDisabled))
	s.captured("client", "victim")
	victim, thief := s.pod("victim"), s.pod("thief")
	url := "http://" + victim.Status.PodIP + ":8080/"
	s.answers("client", url, "victim")

	traffic := s.steady("client", url)
	// The thief's own kubelet, which is honest here, takes the lie back within seconds.
	lie := fmt.Appendf(nil, `{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, victim.Status.PodIP, victim.Status.PodIP)
	g.Expect(world.client.Status().Patch(t.Context(), &thief, client.RawPatch("application/merge-patch+json", lie))).To(Succeed())
	g.Eventually(func(g Gomega) {
		var events eventsv1.EventList
		g.Expect(world.client.List(t.Context(), &events, client.InNamespace(s.name))).To(Succeed())
		g.Expect(events.Items).To(ContainElement(And(
			HaveField("Reason", v1alpha1.MeshReasonAddressConflict), HaveField("Regarding.Name", thief.Name),
			HaveField("Note", ContainSubstring(victim.Status.PodIP)),
		)))
	}).Should(Succeed())
	g.Eventually(func(g Gomega) {
		mesh := &v1alpha1.Mesh{}
		g.Expect(world.client.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, mesh)).To(Succeed())
		g.Expect(meta.IsStatusConditionTrue(mesh.Status.Conditions, v1alpha1.MeshConditionAddressesReady)).To(BeTrue(), "%v", mesh.Status.Conditions)
	}).Should(Succeed())
	total := traffic.end()
	g.Expect(total.failures()).To(BeEmpty(), "the victim is strict: %v", total)
	g.Expect(total.of("victim")).NotTo(BeZero())
}
