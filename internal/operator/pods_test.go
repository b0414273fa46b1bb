// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What the Mesh's status says of a node proxy that can't start must be in the cache.
func TestTrimPod(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}},
		Status: corev1.PodStatus{
			Conditions:        []corev1.PodCondition{{Type: corev1.PodScheduled}, {Type: names.ConditionPluginInstalled}, {Type: corev1.PodReady}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent"}},
		},
	}
	out, err := trimPod(pod)
	require.NoError(t, err)
	require.Equal(t, []corev1.PodCondition{{Type: corev1.PodReady}}, out.(*corev1.Pod).Status.Conditions)
	require.Empty(t, out.(*corev1.Pod).Status.ContainerStatuses)

	pod.Labels = deploy.NodeLabels()
	out, err = trimPod(pod)
	require.NoError(t, err)
	require.Equal(t, pod.Status.Conditions, out.(*corev1.Pod).Status.Conditions)
	require.Equal(t, pod.Status.ContainerStatuses, out.(*corev1.Pod).Status.ContainerStatuses)
	require.Empty(t, out.(*corev1.Pod).Annotations)
}
