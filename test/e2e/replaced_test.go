// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// rollOut replaces the pods of a workload of the mesh, as `kubectl rollout restart` does.
func rollOut(t *testing.T, o client.Object) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil,
		`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`,
		time.Now().Format(time.RFC3339Nano)))
	require.NoError(t, world.client.Patch(t.Context(), o, patch))
}

func rollOutOperator(t *testing.T) {
	t.Helper()
	rollOut(t, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.OperatorService},
	})
}

func nodeProxies() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet}}
}

// nodesRolledOut waits until every node has the newest node proxy.
func nodesRolledOut(t *testing.T) {
	t.Helper()
	eventually.PassesWithin(t, 3*time.Minute, "the node proxies are rolled out", func(look require.TestingT) {
		var d appsv1.DaemonSet
		require.NoError(look,
			world.client.Get(t.Context(), client.ObjectKey{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet}, &d))
		require.Equal(look, d.Generation, d.Status.ObservedGeneration)
		require.Equal(look, d.Status.DesiredNumberScheduled, d.Status.UpdatedNumberScheduled)
		require.Equal(look, d.Status.DesiredNumberScheduled, d.Status.NumberAvailable)
	})
}

// TestFirstConnectionsWhileTheMeshIsReplaced enrols a namespace while operator and node proxies are replaced, and then,
// while the operator is replaced once more, dials addresses that nobody has dialled before. Each is dialled once, and
// answers.
func TestFirstConnectionsWhileTheMeshIsReplaced(t *testing.T) {
	const addresses = 24
	s := newSpace(t)
	s.server("server")
	s.scale("server", 2)
	s.client("client")
	services := make([]*corev1.Service, addresses)
	for i := range services {
		services[i] = s.service(fmt.Sprintf("server-%d", i), "server")
	}
	eventually.Passes(t, "both endpoints of every Service", func(look require.TestingT) {
		for _, svc := range services {
			var list discoveryv1.EndpointSliceList
			require.NoError(look, world.client.List(t.Context(), &list, client.InNamespace(s.name),
				client.MatchingLabels{discoveryv1.LabelServiceName: svc.Name}))
			require.True(look,
				slices.ContainsFunc(list.Items, func(s discoveryv1.EndpointSlice) bool { return len(s.Endpoints) == 2 }), svc.Name)
		}
	})

	rollOutOperator(t)
	rollOut(t, nodeProxies())
	s.label(names.LabelMesh, names.MeshEnabled)
	nodesRolledOut(t)
	s.captured("client", "server")

	rollOutOperator(t)
	s.client("fresh")
	for i, svc := range services {
		from := []string{"client", "fresh"}[i%2]
		a, err := s.get(from, "http://"+svc.Spec.ClusterIP+"/", "--timeout", "10s")
		require.NoError(t, err, "%s dials %s (%s) for the first time", from, svc.Name, svc.Spec.ClusterIP)
		require.Equal(t, http.StatusOK, a.Status,
			"%s dials %s (%s) for the first time: %s", from, svc.Name, svc.Spec.ClusterIP, a.Body)
	}
	s.ready("server")
	s.label(names.LabelMesh, "")
	s.captureIs(corev1.ConditionFalse, "client", "server", "fresh")
	operatorPods(t) // the next test finds no rollout under way
}
