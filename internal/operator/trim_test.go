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
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// TestWhatIsTrimmedDecidesNothing: the guards of pods and the endpoints of Services are the same as of whole objects,
// in all cases of package ingest.
func TestWhatIsTrimmedDecidesNothing(t *testing.T) {
	decode := serializer.NewCodecFactory(scheme()).UniversalDeserializer().Decode
	files, err := filepath.Glob("../ingest/testdata/*/input.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	guards, endpoints, named := 0, 0, 0
	trim := trimAny()
	for _, file := range append(files, "../explain/testdata/bookshop.yaml") {
		whole, trimmed := newDecisions(), newDecisions()
		var pods []cluster.Key
		var ports []model.ServicePort
		for _, f := range []string{"../ingest/testdata/mesh.yaml", file} {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			for _, doc := range bytes.Split(text, []byte("\n---\n")) {
				o, _, err := decode(doc, nil, nil)
				require.NoError(t, err, file)
				require.NoError(t, whole.store.Set(o.DeepCopyObject().(client.Object)))
				require.NoError(t, trimmed.store.Set(trim(t, o)))
				switch o := o.(type) {
				case *corev1.Pod:
					pods = append(pods, client.ObjectKeyFromObject(o))
					named += len(trimContainers(o.Spec.Containers))
				case *corev1.Service:
					for _, p := range o.Spec.Ports {
						ports = append(ports, model.ServicePort{
							Namespace: o.Namespace, Service: o.Name, Port: uint16(p.Port),
						})
					}
				}
			}
		}
		for _, pod := range pods {
			want := whole.PodGuard.Get(nil, pod)
			require.Equal(t, want, trimmed.PodGuard.Get(nil, pod), "%s: %s", file, pod)
			if want != nil {
				guards++
			}
		}
		for _, port := range ports {
			want := whole.Endpoints.Get(nil, port)
			require.Equal(t, want, trimmed.Endpoints.Get(nil, port), "%s: %s", file, port)
			endpoints += len(want)
		}
	}
	require.Positive(t, guards)
	require.Positive(t, endpoints)
	require.Positive(t, named, "no pod has a named port")
}

// trimAny trims an object as the cache of its kind does.
func trimAny() func(t *testing.T, o runtime.Object) client.Object {
	by := trimmed(map[client.Object]cache.ByObject{})
	return func(t *testing.T, o runtime.Object) client.Object {
		t.Helper()
		for kind, of := range by {
			if cluster.NameOf(kind) == cluster.NameOf(o.(client.Object)) {
				out, err := of.Transform(o)
				require.NoError(t, err)
				return out.(client.Object)
			}
		}
		return o.(client.Object)
	}
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

// TestWhatIsAlikeIsThereOnce: pods of one ReplicaSet share what they have in common.
func TestWhatIsAlikeIsThereOnce(t *testing.T) {
	trimmer := newPodTrimmer()
	pod := func(name, app string) *corev1.Pod {
		return trimmer.trim(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{"app": app},
				OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app, Controller: new(true)}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: app, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
			}}},
		})
	}
	a, b, c := pod("a", "cart"), pod("b", "cart"), pod("c", "pay")
	require.Equal(t, a.Labels, b.Labels)
	require.Same(t, &a.Spec.Containers[0], &b.Spec.Containers[0])
	require.Same(t, &a.OwnerReferences[0], &b.OwnerReferences[0])
	a.Labels["seen"] = "at both"
	require.Equal(t, a.Labels, b.Labels)
	require.Equal(t, map[string]string{"app": "pay"}, c.Labels)
	require.Equal(t, "pay", c.OwnerReferences[0].Name)
	require.Equal(t, "pay", c.Spec.Containers[0].Name)
}

// TestTrimmedNodesAndSlices: what kubelet and others add to a Node or an EndpointSlice has no place in the cache.
func TestTrimmedNodesAndSlices(t *testing.T) {
	node := trimNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24"}, Taints: []corev1.Taint{{Key: "t"}}},
		Status: corev1.NodeStatus{
			Images: make([]corev1.ContainerImage, 50), Addresses: []corev1.NodeAddress{{Address: "1.2.3.4"}},
		},
	})
	require.Equal(t, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24"}, Taints: []corev1.Taint{{Key: "t"}}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "1.2.3.4"}}},
	}, node)
	trimmer := newSliceTrimmer()
	slice := func(name string) *discoveryv1.EndpointSlice {
		return trimmer.trim(&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				discoveryv1.LabelServiceName: "cart", "app": "cart",
			}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1"}, NodeName: new("node-1"),
				Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
				TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: "a", UID: "u"},
			}},
		})
	}
	a, b := slice("a"), slice("b")
	require.Equal(t, map[string]string{discoveryv1.LabelServiceName: "cart"}, a.Labels)
	require.Equal(t, &corev1.ObjectReference{Kind: "Pod", Name: "a"}, a.Endpoints[0].TargetRef)
	require.True(t, *a.Endpoints[0].Conditions.Ready)
	require.Nil(t, a.Endpoints[0].Conditions.Serving, "unknown is another thing than false")
	require.Same(t, a.Endpoints[0].NodeName, b.Endpoints[0].NodeName)
}

// TestTrimmedServices: the operator compares the annotations of its own Services with what it wants.
func TestTrimmedServices(t *testing.T) {
	service := func(by string) *corev1.Service {
		return trimService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{names.LabelManagedBy: by}, Annotations: map[string]string{"a": "b"},
		}})
	}
	require.Empty(t, service("helm").Annotations)
	require.NotEmpty(t, service(names.ManagedBy).Annotations)
}

// TestMarksOfTheDeletedStay: a cache may have its transformation look at what is no object.
func TestMarksOfTheDeletedStay(t *testing.T) {
	gone := toolscache.DeletedFinalStateUnknown{Key: "a/b"}
	for _, of := range trimmed(map[client.Object]cache.ByObject{}) {
		out, err := of.Transform(gone)
		require.NoError(t, err)
		require.Equal(t, gone, out)
	}
}
