// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestAPodThatComesBackUnderItsName: a StatefulSet's pod that is made anew, on its node or another one, while its
// forerunner ends or is forgotten, is as closed as that was from its first moment on, and so is the old one.
func TestAPodThatComesBackUnderItsName(t *testing.T) {
	t.Parallel()
	s, plain := enrolled(t), newSpace(t)
	s.client("friend")
	s.client("stranger")
	plain.client("outsider")
	s.service("app", "app")
	guard := policyFor(networkAllow) // of app, for friend
	s.create(guard)
	s.stateful("app")
	s.captured("friend", "stranger", "app")
	s.enforced(guard)
	s.answers("friend", "http://app/", "app")

	var nodes []string
	for node := range nodePods(t) {
		nodes = append(nodes, node)
	}
	require.Greater(t, len(nodes), 1, "the cluster has one node only")
	now := s.pod("app").Spec.NodeName
	other := nodes[0]
	if other == now {
		other = nodes[1]
	}
	for _, d := range []struct {
		what, node string
		how        []client.DeleteOption
	}{
		{"on its node", now, nil},
		{"on another node", other, nil},
		{"on its node, forgotten", other, []client.DeleteOption{client.GracePeriodSeconds(0)}},
		{"on another node, forgotten", now, []client.DeleteOption{client.GracePeriodSeconds(0)}},
	} {
		former := s.pod("app")
		by := "http://" + former.Status.PodIP + ":8080/"
		// Where nobody is any more there is no answer, so those who ask there ask a few at a time.
		few, more := []string{"-n", "16", "--timeout", "1s"}, []string{"-n", "80", "--timeout", "1s"}
		before := map[string]way{
			"a stranger, by the Service":           {s, "stranger", "http://app/", few},
			"a stranger, by the old address":       {s, "stranger", by, few},
			"somebody outside, by the Service":     {plain, "outsider", "http://" + s.host("app") + "/", few},
			"somebody outside, by the old address": {plain, "outsider", by, few},
		}
		early := 0
		old := s.flooded(d.what, before, func() {
			s.onNode("app", d.node)
			require.NoError(t, world.client.Delete(t.Context(), &former, d.how...))
			// Its address is known while an init container runs: callers are there before it listens.
			address := s.addressAfter(former.Name, former.UID)
			early = s.flooded(d.what, map[string]way{
				"a stranger, by the new address":       {s, "stranger", "http://" + address + ":8080/", more},
				"somebody outside, by the new address": {plain, "outsider", "http://" + address + ":8080/", more},
			}, func() {
				s.captured("app")
				eventually.Passes(t, "the new pod is ready", func(look require.TestingT) {
					pods := s.pods("app")
					require.Len(look, pods, 1)
					require.NotEqual(look, former.UID, pods[0].UID)
					require.True(look, podReady(&pods[0]))
					require.Equal(look, d.node, pods[0].Spec.NodeName)
				})
				s.answers("friend", "http://app/", "app")
			})
		})
		t.Logf("%s: 0 of %d got through, 0 of %d to the new address", d.what, old, early)
		require.Greater(t, early, 100)
		s.enforced(guard)
	}
}

// stateful is server with one pod of a StatefulSet, which is replaced when it is deleted, and for a while has an
// address before it serves.
func (s *space) stateful(name string) {
	s.t.Helper()
	s.server("template", func(d *deployment) { d.Spec.Replicas = new(int32(0)) })
	var d appsv1.Deployment
	require.NoError(s.t, world.client.Get(s.t.Context(), client.ObjectKey{Namespace: s.name, Name: "template"}, &d))
	pod := d.Spec.Template
	pod.Labels = map[string]string{"app": name}
	pod.Spec.Containers[0].Args = []string{"serve", "--name=" + name}
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "waits", Image: toolImage, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"sleep", "--for=2s"},
	}}
	s.create(&appsv1.StatefulSet{ObjectMeta: metaOf(name), Spec: appsv1.StatefulSetSpec{
		ServiceName: name, Selector: &metav1.LabelSelector{MatchLabels: pod.Labels}, Template: pod,
		PodManagementPolicy: appsv1.ParallelPodManagement,
		UpdateStrategy:      appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
	}})
	eventually.Passes(s.t, "the pod of StatefulSet "+name, func(look require.TestingT) {
		pods := s.pods(name)
		require.Len(look, pods, 1)
		require.True(look, podReady(&pods[0]))
	})
}

// onNode says where the next pod of a StatefulSet runs.
func (s *space) onNode(name, node string) {
	s.t.Helper()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: name}}
	require.NoError(s.t, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(set), set))
	patch := client.MergeFrom(set.DeepCopy())
	set.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	require.NoError(s.t, world.client.Patch(s.t.Context(), set, patch))
	eventually.Passes(s.t, "the controller knows the new template", func(look require.TestingT) {
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(set), set))
		require.Equal(look, set.Generation, set.Status.ObservedGeneration)
	})
}

// addressAfter waits for the address of the pod that comes after one of the same name.
func (s *space) addressAfter(name string, former types.UID) (address string) {
	s.t.Helper()
	eventually.Passes(s.t, "the address of the next "+name, func(look require.TestingT) {
		var p corev1.Pod
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKey{Namespace: s.name, Name: name}, &p))
		require.NotEqual(look, former, p.UID)
		address = p.Status.PodIP
		require.NotEmpty(look, address)
	})
	return address
}
