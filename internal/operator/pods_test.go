// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What statuses say of a proxy that can't start must be in the cache.
func TestTrimPod(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}},
		Status: corev1.PodStatus{
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled}, {Type: v1alpha1.PodConditionPluginInstalled}, {
				Type: v1alpha1.PodConditionCaptured,
			}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent"}},
		},
	}
	trimmer := newPodTrimmer()
	out := trimmer.trim(pod)
	require.Equal(t, []corev1.PodCondition{{Type: v1alpha1.PodConditionCaptured}}, out.Status.Conditions)
	require.Empty(t, out.Status.ContainerStatuses)

	for _, labels := range []map[string]string{deploy.NodeLabels(), {names.LabelComponent: names.ComponentWaypoint}} {
		pod.Labels = labels
		out = trimmer.trim(pod)
		require.Equal(t, pod.Status.Conditions, out.Status.Conditions)
		require.Equal(t, pod.Status.ContainerStatuses, out.Status.ContainerStatuses)
		require.Empty(t, out.Annotations)
	}
}

// A node can make mirror pods by itself: they are nobody, whatever account they name.
func TestPodsWithoutAnAccountAreNobody(t *testing.T) {
	of := func(account string, annotations map[string]string) auth.Pod {
		out := newPodTrimmer().trim(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Annotations: annotations},
			Spec:       corev1.PodSpec{NodeName: "n", ServiceAccountName: account},
		})
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{
			names.LabelMesh: names.MeshEnabled,
		}}}
		c := fake.NewClientBuilder().WithObjects(out, ns).WithIndex(
			&corev1.Pod{}, podAccount, accountsOf).Build()
		view := pods{c}
		require.Equal(t, account == "cart" && annotations == nil, view.RunsOn("n", "shop", "cart"))
		require.False(t, view.RunsOn("n", "shop", "default"))
		p, ok := view.Pod("shop", "p")
		require.True(t, ok)
		return p
	}
	mirror := map[string]string{names.AnnotationMirror: "hash"}
	require.Equal(t, "cart", of("cart", nil).ServiceAccount)
	require.Empty(t, of("", nil).ServiceAccount)
	require.Empty(t, of("", mirror).ServiceAccount)
	require.Empty(t, of("cart", mirror).ServiceAccount)
}
