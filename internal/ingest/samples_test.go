// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// bookshop has what the samples beside it are about.
const bookshop = "bookshop.yaml"

// TestSamplesAreInForce: of each sample that users are shown, beside what it names, nothing but good is said. One shows
// a mistake. Whether an API server takes them is asked in test/manifests.
func TestSamplesAreInForce(t *testing.T) {
	const wrong = "bookshop/route-broken.yaml"
	root := filepath.Join("..", "..", "config", "samples")
	said := 0
	for _, pattern := range []string{"[fgn]*.yaml", "bookshop/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			name, err := filepath.Rel(root, file)
			require.NoError(t, err)
			t.Run(name, func(t *testing.T) {
				w := newWorld()
				w.set(t, readManifests(t, "testdata/mesh.yaml")...)
				w.set(t, readManifests(t, "testdata/samples.yaml")...)
				if beside := filepath.Join(filepath.Dir(file), bookshop); filepath.Base(filepath.Dir(file)) == "bookshop" {
					w.set(t, known(readManifests(t, beside))...)
				}
				sample := known(readManifests(t, file))
				w.set(t, sample...)
				w.store.Pods.MarkSettled()
				var bad []string
				for _, o := range sample {
					b, n := w.complaints(o)
					bad, said = append(bad, b...), said+n
				}
				if name == wrong {
					require.Len(t, bad, 1)
					require.Contains(t, bad[0], "Service bookshop/recommendations does not exist")
					return
				}
				require.Empty(t, bad)
			})
		}
	}
	require.Greater(t, said, 20)
}

// known are the objects that the mesh reads, as a cluster has them: Services with an address, namespaces enrolled.
func known(in []client.Object) (out []client.Object) {
	for n, o := range in {
		switch o := o.(type) {
		case *appsv1.Deployment, *corev1.ServiceAccount, *networkingv1.NetworkPolicy:
			continue
		case *corev1.Namespace:
			o.Labels = map[string]string{names.LabelMesh: names.MeshEnabled}
		case *corev1.Service:
			o.Spec.ClusterIP = fmt.Sprint("10.96.9.", n+1)
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		out = append(out, o)
	}
	return out
}

// complaints are what statuses say of an object that isn't good, and how many conditions there are.
func (w *world) complaints(o client.Object) (bad []string, conditions int) {
	if g, ok := o.(*gwv1.Gateway); ok {
		if v := JudgeWaypoint(g); v != nil {
			bad = append(bad, v.Message)
		}
		return bad, 1
	}
	if svc, ok := o.(*corev1.Service); ok {
		if b := w.in.Bound.Get(nil, client.ObjectKeyFromObject(svc)); b.Problem != "" || b.Unsupported != "" {
			bad = append(bad, b.Problem+b.Unsupported)
		}
	}
	ref, ok := ReportRef(o)
	if !ok {
		return bad, 0
	}
	r := w.in.Report.Get(nil, ref)
	if r == nil || len(r.Parents) == 0 {
		return []string{fmt.Sprintf("nothing is said of %v", ref)}, 0
	}
	for _, p := range r.Parents {
		for _, c := range p.Conditions {
			if conditions++; c.Status != metav1.ConditionTrue || c.Type == string(gwv1.RouteConditionPartiallyInvalid) {
				bad = append(bad, c.Message)
			}
		}
		if p.Unprogrammed != nil {
			bad = append(bad, p.Unprogrammed.Message)
		}
		if p.Enforcement != nil && len(p.Enforcement.Closed) > 0 {
			bad = append(bad, p.Enforcement.Closed[0].Message)
		}
	}
	return bad, conditions
}
