// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestReportsOnPoliciesCostWhatChanges: a pod that comes is looked for once, and not for each policy.
func TestReportsOnPoliciesCostWhatChanges(t *testing.T) {
	const pods, policies = 500, 50
	w := newWorld()
	w.set(t, &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
		}})
	ref := func(n int) model.ObjectRef {
		return model.ObjectRef{Kind: kindAuthorization, Namespace: "shop", Name: fmt.Sprint("p", n)}
	}
	told := 0
	for n := range policies {
		p := accessPolicyOf(1, "x")
		p.Name = ref(n).Name
		w.set(t, p)
		w.in.Report.Watch(ref(n), func(*Report) { told++ })
	}
	pod := func(n int) *corev1.Pod {
		out := workloadPod("a", n)
		out.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.1.%d.%d", n/250, n%250+1)}}
		return out
	}
	for n := range pods {
		w.set(t, pod(n))
	}
	w.graph.Flush()
	told = 0
	before := w.graph.Reads
	w.set(t, pod(pods))
	w.graph.Flush()
	require.Equal(t, policies, told)
	require.Less(t, w.graph.Reads-before, uint64(10*pods))
	of := func(n int) *GuardedPods { return w.in.Report.Get(nil, ref(n)).Parents[0].Enforcement.Pods }
	require.Same(t, of(0), of(1), "policies for the same pods share them")
	require.Len(t, of(0).Uncaptured, pods+1)
	w.set(t, workloadPod("b", 0))
	told = 0
	w.graph.Flush()
	require.Zero(t, told, "a pod that they are not for")
}
