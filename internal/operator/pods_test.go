// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// What statuses say of a proxy that can't start must be in the cache.
func TestTrimPod(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}},
		Status: corev1.PodStatus{
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled}, {Type: v1alpha1.PodConditionPluginInstalled}, {
				Type: corev1.PodReady,
			}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent"}},
		},
	}
	out, err := trimPod(pod)
	require.NoError(t, err)
	require.Equal(t, []corev1.PodCondition{{Type: corev1.PodReady}}, out.(*corev1.Pod).Status.Conditions)
	require.Empty(t, out.(*corev1.Pod).Status.ContainerStatuses)

	for _, labels := range []map[string]string{deploy.NodeLabels(), {names.LabelComponent: names.ComponentWaypoint}} {
		pod.Labels = labels
		out, err = trimPod(pod)
		require.NoError(t, err)
		require.Equal(t, pod.Status.Conditions, out.(*corev1.Pod).Status.Conditions)
		require.Equal(t, pod.Status.ContainerStatuses, out.(*corev1.Pod).Status.ContainerStatuses)
		require.Empty(t, out.(*corev1.Pod).Annotations)
	}
}

// A node can make mirror pods by itself: they are nobody, whatever account they name.
func TestPodsWithoutAnAccountAreNobody(t *testing.T) {
	of := func(account string, annotations map[string]string) auth.Pod {
		out, err := trimPod(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Annotations: annotations},
			Spec:       corev1.PodSpec{NodeName: "n", ServiceAccountName: account},
		})
		require.NoError(t, err)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{
			names.LabelMesh: names.MeshEnabled,
		}}}
		c := fake.NewClientBuilder().WithObjects(out.(*corev1.Pod), ns).WithIndex(
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

// TestWhatIsTrimmedDecidesNothing: the guards of pods are the same as of whole pods, in all cases of package ingest.
func TestWhatIsTrimmedDecidesNothing(t *testing.T) {
	decode := serializer.NewCodecFactory(scheme()).UniversalDeserializer().Decode
	files, err := filepath.Glob("../ingest/testdata/*/input.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	guards, named := 0, 0
	for _, file := range append(files, "../explain/testdata/bookshop.yaml") {
		whole, trimmed := newDecisions(), newDecisions()
		var pods []cluster.Key
		for _, f := range []string{"../ingest/testdata/mesh.yaml", file} {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			for _, doc := range bytes.Split(text, []byte("\n---\n")) {
				o, _, err := decode(doc, nil, nil)
				require.NoError(t, err, file)
				require.NoError(t, whole.store.Set(o.(client.Object)))
				if pod, ok := o.(*corev1.Pod); ok {
					pods = append(pods, client.ObjectKeyFromObject(pod))
					named += len(trimContainers(pod.Spec.Containers))
					small, err := trimPod(pod)
					require.NoError(t, err)
					o = small.(*corev1.Pod)
				}
				require.NoError(t, trimmed.store.Set(o.(client.Object)))
			}
		}
		for _, pod := range pods {
			want := whole.PodGuard.Get(nil, pod)
			require.Equal(t, want, trimmed.PodGuard.Get(nil, pod), "%s: %s", file, pod)
			if want != nil {
				guards++
			}
		}
	}
	require.Positive(t, guards)
	require.Positive(t, named, "no pod has a named port")
}

type decisions struct {
	*ingest.Ingest
	store *cluster.Store
}

func newDecisions() decisions {
	g := memo.New()
	store := cluster.NewStore(g)
	return decisions{ingest.New(g, store, route.CheckRule), store}
}
