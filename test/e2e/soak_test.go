// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
)

// rollOut replaces the pods of a workload of the mesh, as `kubectl rollout restart` does.
func rollOut(t *testing.T, o client.Object) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil,
		`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano)))
	NewWithT(t).Expect(world.client.Patch(t.Context(), o, patch)).To(Succeed())
}

func rollOutOperator(t *testing.T) {
	t.Helper()
	rollOut(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.OperatorService}})
}

// nodesRolledOut waits until every node has the newest node proxy.
func nodesRolledOut(t *testing.T) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		var d appsv1.DaemonSet
		g.Expect(world.client.Get(t.Context(), client.ObjectKey{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet}, &d)).To(Succeed())
		g.Expect(d.Status.ObservedGeneration).To(Equal(d.Generation))
		g.Expect(d.Status.UpdatedNumberScheduled).To(Equal(d.Status.DesiredNumberScheduled))
		g.Expect(d.Status.NumberAvailable).To(Equal(d.Status.DesiredNumberScheduled))
	}).WithTimeout(3 * time.Minute).Should(Succeed())
}

// TestFirstConnectionsWhileTheMeshIsReplaced enrols a namespace while operator and node proxies are replaced, and then,
// while the operator is replaced once more, dials addresses that nobody has dialled before. Each is dialled once, and
// answers.
func TestFirstConnectionsWhileTheMeshIsReplaced(t *testing.T) {
	const addresses = 24
	g := NewWithT(t)
	s := newSpace(t)
	s.server("server")
	s.scale("server", 2)
	s.client("client")
	services := make([]*corev1.Service, addresses)
	for i := range services {
		services[i] = s.service(fmt.Sprintf("server-%d", i), "server")
	}
	g.Eventually(func(g Gomega) {
		for _, svc := range services {
			var slices discoveryv1.EndpointSliceList
			g.Expect(world.client.List(t.Context(), &slices, client.InNamespace(s.name),
				client.MatchingLabels{discoveryv1.LabelServiceName: svc.Name})).To(Succeed())
			g.Expect(slices.Items).To(ContainElement(HaveField("Endpoints", HaveLen(2))))
		}
	}).Should(Succeed())

	rollOutOperator(t)
	rollOut(t, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet}})
	s.label(names.LabelMesh, names.MeshEnabled)
	nodesRolledOut(t)
	s.captured("client", "server")

	rollOutOperator(t)
	s.client("fresh")
	for i, svc := range services {
		from := []string{"client", "fresh"}[i%2]
		a, err := s.get(from, "http://"+svc.Spec.ClusterIP+"/", "--timeout", "10s")
		g.Expect(err).NotTo(HaveOccurred(), "%s dials %s (%s) for the first time", from, svc.Name, svc.Spec.ClusterIP)
		g.Expect(a.Status).To(Equal(http.StatusOK), "%s dials %s (%s) for the first time: %s", from, svc.Name, svc.Spec.ClusterIP, a.Body)
	}
	s.ready("server")
	s.label(names.LabelMesh, "")
	s.captureIs(corev1.ConditionFalse, "client", "server", "fresh")
}
