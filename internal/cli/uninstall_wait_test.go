// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// What is in another namespace than the one that was named is neither deleted nor taken for gone.
func TestUninstallOfAnotherNamespace(t *testing.T) {
	for name, objects := range map[string][]client.Object{
		"all":                append(healthyMesh(), installed()...),
		"the DaemonSet":      append(healthyMesh(), installed()[1]),
		"the operator":       append(healthyMesh(), installed()[0]),
		"the Mesh gone":      installed(),
		"of the same labels": {installed()[0]},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := planRemoval(t.Context(), fakeCluster(t, nil, objects...), "ten")
			require.ErrorContains(t, err, "nothing was deleted")
			require.ErrorContains(t, err, "say --system-namespace fairway-system")
		})
	}

	// Labels that anybody may set keep nobody from removing what is there.
	fake := installed()[0]
	fake.SetNamespace("ten")
	p, err := planRemoval(t.Context(), fakeCluster(t, nil, append(append(healthyMesh(), fake), installed()...)...),
		names.SystemNamespace)
	require.NoError(t, err)
	require.EqualValues(t, 2, p.operators)

	// An object of another name is nobody's operator.
	fake.SetName("shop")
	_, err = planRemoval(t.Context(), fakeCluster(t, nil, append(healthyMesh(), fake)...), "other")
	require.NoError(t, err)
}

// Namespaces that may hold what is others' are not to be deleted.
func TestUninstallKeepsNamespacesOfOthers(t *testing.T) {
	marked := map[string]string{labelPartOf: "fairway"}
	c := fakeCluster(t, nil,
		&corev1.Namespace{ObjectMeta: object(names.SystemNamespace, marked)},
		&corev1.Namespace{ObjectMeta: object("default", marked)},
		&corev1.Namespace{ObjectMeta: object("kube-system", marked)},
		&corev1.Namespace{ObjectMeta: object("ten", nil)})
	for namespace, want := range map[string]bool{
		names.SystemNamespace: true, "default": false, "kube-system": false, "ten": false, "missing": false,
	} {
		require.Equal(t, want, mayDelete(t.Context(), c.client, namespace), namespace)
	}
	for _, d := range []*appsv1.Deployment{nil, installed(byHelm)[0].(*appsv1.Deployment)} {
		by := installerOf(d, nil, "ten", false, false)
		for _, command := range by.crds {
			require.NotContains(t, command, "delete namespace")
		}
		require.Contains(t, by.crds[len(by.crds)-1], "kubectl get all,configmaps,secrets -n ten")
	}
}

// Names that somebody has set are in no command unless they are names.
func TestUninstallCommandsAreSafeToPaste(t *testing.T) {
	of := func(change func(*appsv1.Deployment)) []string {
		return installerOf(installed(change)[0].(*appsv1.Deployment), nil, names.SystemNamespace, false, true).next
	}
	for _, odd := range []string{"mesh; rm -rf ~", "$(id)", "--all", "a\x1b[2J"} {
		for _, c := range append(of(func(d *appsv1.Deployment) {
			byHelm(d)
			d.Annotations[annotationRelease] = odd
		}), append(of(func(d *appsv1.Deployment) {
			byHelm(d)
			d.Annotations[annotationIn] = odd
		}), of(func(d *appsv1.Deployment) {
			d.OwnerReferences = []metav1.OwnerReference{{Kind: kindCSV, Name: odd, UID: "u"}}
		})...)...) {
			require.NotContains(t, c, odd)
		}
	}
}

func quickRemover(c *cluster, notes *bytes.Buffer) *remover {
	return &remover{client: c.client, system: names.SystemNamespace, step: time.Millisecond, notes: notes}
}

// The Mesh itself is waited for, also where there is no DaemonSet.
func TestUninstallWaitsForTheMesh(t *testing.T) {
	kept := mesh(metav1.ConditionTrue, "Ready", "")
	kept.UID, kept.Finalizers = "one", []string{"test.example/keeps"}
	c := fakeCluster(t, nil, kept)
	p, err := planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var notes bytes.Buffer
	err = quickRemover(c, &notes).run(ctx, p)
	require.ErrorContains(t, err, "still there")
	require.ErrorContains(t, err, "test.example/keeps")
	require.Contains(t, notes.String(), "waiting for Mesh default")
}

// Who ends the command has ended it, and nobody else is to blame.
func TestUninstallInterrupted(t *testing.T) {
	c := fakeCluster(t, nil, append(healthyMesh(), installed()...)...)
	p, err := planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var notes bytes.Buffer
	u := quickRemover(c, &notes)
	u.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Delete: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			defer cancel()
			return w.Delete(ctx, o, opts...)
		},
	})
	err = u.run(ctx, p)
	require.ErrorContains(t, err, "interrupted")
	require.NotContains(t, err.Error(), "nodes")
}

// A Mesh that something makes again, as GitOps does, is not waited for and not deleted again.
func TestUninstallOfAMeshThatComesBack(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: object(names.SystemNamespace, nil)}))
	require.NoError(t, c.Create(t.Context(), &v1alpha1.Mesh{ObjectMeta: object(names.Mesh, nil)}))
	objects := installed()
	for _, o := range objects {
		require.NoError(t, c.Create(t.Context(), o))
	}
	first := &v1alpha1.Mesh{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, first))
	kubeconfig := as(t, cfg, "")

	done := make(chan struct{})
	go func() { // what restores it
		defer close(done)
		eventually.Passes(t, "the Mesh is there again", func(look require.TestingT) {
			_ = c.Create(t.Context(), &v1alpha1.Mesh{ObjectMeta: object(names.Mesh, nil)})
			now := &v1alpha1.Mesh{}
			require.NoError(look, c.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, now))
			require.NotEqual(look, first.UID, now.UID)
		})
	}()
	ready := objects[0].(*appsv1.Deployment)
	ready.Status = appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	require.NoError(t, c.Status().Update(t.Context(), ready))
	out, _, err := does(t, "uninstall", "--yes", "--kubeconfig", kubeconfig, "--timeout", "30s")
	<-done
	require.ErrorContains(t, err, "something has made a new one meanwhile")
	require.NotContains(t, err.Error(), "run this command again")
	require.Contains(t, out, "Cluster: context test, "+cfg.Host+"\n")
	require.NotContains(t, out, "to remove the operator", "what it would need is not said")

	_, _, err = does(t, "uninstall", "--yes", "--kubeconfig", kubeconfig, "--system-namespace", "ten")
	require.ErrorContains(t, err, "say --system-namespace fairway-system")
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, &v1alpha1.Mesh{}))
}
