// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The tests of this file restart parts of the mesh. Those that others depend on run alone: they are not parallel.

// component lists the mesh's pods of one kind in a namespace.
func component(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := world.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{names.LabelComponent: name})
	return list.Items, err
}

// operatorPods returns the operators once no other is there: one that a rollout is about to take away does not answer
// for long.
func operatorPods(t *testing.T) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	eventually.PassesWithin(t, 2*time.Minute, "the operators are rolled out", func(look require.TestingT) {
		var d appsv1.Deployment
		require.NoError(look,
			world.client.Get(t.Context(), client.ObjectKey{Namespace: names.SystemNamespace, Name: names.OperatorService}, &d))
		require.Equal(look, d.Generation, d.Status.ObservedGeneration)
		require.Equal(look, *d.Spec.Replicas, d.Status.UpdatedReplicas)
		require.Equal(look, *d.Spec.Replicas, d.Status.AvailableReplicas)
		var err error
		pods, err = component(t.Context(), names.SystemNamespace, names.ComponentOperator)
		require.NoError(look, err)
		require.Len(look, pods, int(*d.Spec.Replicas))
	})
	return pods
}

// replaced deletes pods and waits until as many others are ready.
func replaced(t *testing.T, namespace, name string, which func(*corev1.Pod) bool, how ...client.DeleteOption) {
	t.Helper()
	var pods []corev1.Pod
	eventually.PassesWithin(t, 2*time.Minute, "all pods of "+name+" are ready: nothing replaces them now",
		func(look require.TestingT) {
			var err error
			pods, err = component(t.Context(), namespace, name)
			require.NoError(look, err)
			for i := range pods {
				require.True(look, podReady(&pods[i]) && pods[i].DeletionTimestamp == nil, pods[i].Name)
			}
		})
	old, want := map[types.UID]bool{}, len(pods)
	for i := range pods {
		if which == nil || which(&pods[i]) {
			old[pods[i].UID] = true
			require.NoError(t, world.client.Delete(t.Context(), &pods[i], how...))
		}
	}
	require.NotEmpty(t, old, "no %s pod to restart", name)
	what := fmt.Sprintf("%d pods of %s, all of them new", want, name)
	eventually.PassesWithin(t, 2*time.Minute, what, func(look require.TestingT) {
		now, err := component(t.Context(), namespace, name)
		require.NoError(look, err)
		ready := 0
		for i := range now {
			if !old[now[i].UID] && podReady(&now[i]) {
				ready++
			}
			require.False(look, old[now[i].UID], "pod %s is still there", now[i].Name)
		}
		require.Equal(look, want, ready)
	})
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func TestTrafficGoesOnWhileTheOperatorIsAway(t *testing.T) {
	s := enrolled(t)
	s.client("client")
	s.versions("app")
	s.captured("client", "app-v1", "app-v2")
	s.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	s.programmed("app")
	s.routed("client", "http://app/", "app-v1")
	s.answers("client", "http://app-v2/", "app-v2")

	routed, direct := s.steady("client", "http://app/"), s.steady("client", "http://app-v2/")
	replaced(t, names.SystemNamespace, names.ComponentOperator, nil)
	through, straight := routed.end(), direct.end()
	require.Empty(t, through.failures(), "through the waypoint: %v", through)
	require.Empty(t, straight.failures(), "pod to pod: %v", straight)
	require.Zero(t, through.of("app-v2"), "the route holds: %v", through)

	// And updates come again: a new route, a new Service, a new pod.
	s.reroute("app", "app-v2")
	s.programmed("app")
	s.routed("client", "http://app/", "app-v2")
	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
}

func TestNodeProxyRestarts(t *testing.T) {
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	before := s.pod("server").UID

	node := s.pod("server").Spec.NodeName
	replaced(t, names.SystemNamespace, names.ComponentNode, func(p *corev1.Pod) bool { return p.Spec.NodeName == node })
	s.captured("client", "server")
	start := since()
	s.answers("client", "http://server/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	require.Equal(t, before, s.pod("server").UID, "the pod itself was left alone")
	// New pods of that node are taken in as before.
	s.scale("server", 3)
	s.captured("server")
	total := s.many("client", 30, "http://server/")
	require.Empty(t, total.failures())
}

// A waypoint's absence closes the Service: no request goes around it. Its pods get no time to wait for others.
func TestWaypointRestarts(t *testing.T) {
	t.Parallel() // the waypoint is its own
	s := enrolled(t)
	s.client("client")
	s.versions("app")
	s.captured("client", "app-v1", "app-v2")
	s.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	s.programmed("app")
	s.routed("client", "http://app/", "app-v1")

	steady := s.steady("client", "http://app/", "--timeout", "2s")
	replaced(t, s.name, names.ComponentWaypoint, nil, client.GracePeriodSeconds(1))
	s.answers("client", "http://app/", "app-v1")
	total := steady.end()
	require.Zero(t, total.of("app-v2"), "a request went around the waypoint: %v", total)
	require.Positive(t, total.of("app-v1"), "%v", total)
	s.programmed("app")
	eventually.Passes(t, "no failure through the new waypoint", func(look require.TestingT) {
		got := s.many("client", 20, "http://app/")
		require.Empty(look, got.failures())
	})
	goesSoon(t, s.name)
}

// goesSoon: an idle waypoint's drain, of 30 s, ends with the connections that its callers keep, which heed its GOAWAY.
func goesSoon(t *testing.T, namespace string) {
	t.Helper()
	pods, err := component(t.Context(), namespace, names.ComponentWaypoint)
	require.NoError(t, err)
	require.NotEmpty(t, pods)
	require.NoError(t, world.client.Delete(t.Context(), &pods[0]))
	eventually.PassesWithin(t, 20*time.Second, "the deleted waypoint is gone", func(look require.TestingT) {
		require.True(look, gone(t, &corev1.Pod{}, namespace, pods[0].Name))
	})
}

// Deleting the Mesh lets every pod go, without a restart; creating it again takes them back.
func TestTheMeshGoesAndComesBack(t *testing.T) {
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	before := s.pod("server")

	steady := s.steady("client", "http://server/")
	mesh := deleteMesh(t)
	s.captureIs(corev1.ConditionFalse, "client", "server")
	eventually.PassesWithin(t, 2*time.Minute, "node proxies are removed", func(look require.TestingT) {
		left, err := component(t.Context(), names.SystemNamespace, names.ComponentNode)
		require.NoError(look, err)
		require.Empty(look, left, "node proxies are removed")
	})
	total := steady.end()
	t.Logf("while the pods were let go: %v", total)
	got := s.many("client", 20, "http://server/")
	require.Empty(t, got.failures())
	// A pod that starts without the mesh starts as if there had never been one.
	s.server("late")
	s.service("late", "late")
	s.answers("client", "http://late/", "late")

	createMesh(t, mesh)
	s.captured("client", "server", "late")
	a := s.answers("client", "http://server/", "server")
	require.Equal(t, http.StatusOK, a.Status)
	after := s.pod("server")
	require.Equal(t, before.UID, after.UID)
	require.Zero(t, after.Status.ContainerStatuses[0].RestartCount)
}

func metaOf(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
