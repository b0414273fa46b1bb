// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// installed is the operator's Deployment, as something has installed it, and the DaemonSet.
func installed(change ...func(*appsv1.Deployment)) []client.Object {
	app := map[string]string{"app": "x"}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: app},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}},
	}
	d := &appsv1.Deployment{
		ObjectMeta: in(names.SystemNamespace, object(names.OperatorDeployment, map[string]string{
			names.LabelComponent: names.ComponentOperator,
		})),
		Spec:   appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template},
		Status: appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2},
	}
	for _, c := range change {
		c(d)
	}
	return []client.Object{d, &appsv1.DaemonSet{
		ObjectMeta: in(names.SystemNamespace, object(names.NodeDaemonSet, map[string]string{
			names.LabelComponent: names.ComponentNode,
		})),
		Spec:   appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template},
		Status: appsv1.DaemonSetStatus{CurrentNumberScheduled: 2},
	}}
}

func byHelm(d *appsv1.Deployment) {
	d.Labels[labelManagedBy] = "Helm"
	d.Annotations = map[string]string{annotationRelease: "mesh", annotationIn: names.SystemNamespace}
}

func planned(t *testing.T, objects ...client.Object) (*removal, []byte) {
	t.Helper()
	c := fakeCluster(t, nil, objects...)
	c.called = "context test, https://cluster.example"
	p, err := planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	var out bytes.Buffer
	table := &table{out: &out}
	p.draw(table)
	p.drawNext(table)
	require.NoError(t, table.err)
	return p, out.Bytes()
}

func TestUninstallSaysWhatItDeletes(t *testing.T) {
	strict := &corev1.Namespace{ObjectMeta: object("shop", map[string]string{
		names.LabelMesh: names.MeshEnabled, names.LabelMTLSMode: names.MTLSStrict,
	})}
	_, out := planned(t, append(replace(t, healthyMesh(), strict), installed()...)...)
	golden(t, "uninstall.txt", out)

	alone := &corev1.Namespace{ObjectMeta: object(names.SystemNamespace, map[string]string{labelPartOf: "fairway"})}
	_, out = planned(t, append(append(healthyMesh(), alone), installed(byHelm)...)...)
	golden(t, "uninstall-helm.txt", out)

	_, out = planned(t, append(healthyMesh(), installed(func(d *appsv1.Deployment) {
		d.OwnerReferences = []metav1.OwnerReference{{Kind: kindCSV, Name: "fairway.v0.1.0", UID: "u"}}
	})...)...)
	golden(t, "uninstall-olm.txt", out)

	_, out = planned(t, append(healthyMesh(), installed(func(d *appsv1.Deployment) {
		d.Labels["kustomize.toolkit.fluxcd.io/name"] = "mesh"
		d.Status.ReadyReplicas = 0
	})...)...)
	require.Contains(t, string(out), "Flux keeps it as its source says: remove it there, or it comes back.")
	require.Contains(t, string(out), "No operator is ready")

	p, out := planned(t)
	require.Nil(t, p.mesh)
	require.Contains(t, string(out), "There is no Mesh")
}

// vanishing is a client for which the DaemonSet goes once it was looked at so often; deleted are what was.
func vanishing(c client.Client, after int, deleted *[]string) client.Client {
	return interceptor.NewClient(c.(client.WithWatch), interceptor.Funcs{
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if _, is := o.(*appsv1.DaemonSet); is && len(*deleted) > 0 {
				if after--; after < 0 {
					return apierrors.NewNotFound(appsv1.Resource("daemonsets"), key.Name)
				}
			}
			return w.Get(ctx, key, o, opts...)
		},
		Delete: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			*deleted = append(*deleted, o.GetName())
			return w.Delete(ctx, o, opts...)
		},
	})
}

func TestUninstallDeletesTheMeshAndWaits(t *testing.T) {
	c := fakeCluster(t, nil, append(healthyMesh(), installed()...)...)
	p, err := planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	var deleted []string
	var notes bytes.Buffer
	u := remover{
		client: vanishing(c.client, 2, &deleted), system: names.SystemNamespace, step: time.Millisecond, notes: &notes,
	}
	require.NoError(t, u.run(t.Context(), p))
	require.Equal(t, []string{names.Mesh}, deleted, "and nothing else")
	require.Equal(t, "deleted Mesh default\n"+
		"waiting for DaemonSet fairway-system/fairway-node: 2 node proxies are left\n"+
		"DaemonSet fairway-system/fairway-node is gone: no pod is captured any more\n", notes.String())
}

func TestUninstallThatDoesNotEnd(t *testing.T) {
	c := fakeCluster(t, nil, append(healthyMesh(), installed()...)...)
	p, err := planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	u := remover{client: c.client, system: names.SystemNamespace, step: time.Millisecond, notes: &bytes.Buffer{}}
	require.ErrorContains(t, u.run(ctx, p), "is still there")

	away := installed(func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 0 })
	c = fakeCluster(t, nil, append(healthyMesh(), away...)...)
	p, err = planRemoval(t.Context(), c, names.SystemNamespace)
	require.NoError(t, err)
	u.client = c.client
	require.ErrorContains(t, u.run(t.Context(), p), "no operator runs that could let the pods go in order")
}

func TestUninstallAsks(t *testing.T) {
	require.NoError(t, confirmed(strings.NewReader("yes\n"), &bytes.Buffer{}))
	for _, said := range []string{"y\n", "", "no\n"} {
		require.ErrorContains(t, confirmed(strings.NewReader(said), &bytes.Buffer{}), "nothing was deleted")
	}
}

// Of an API server the Mesh goes, and what came in its place meanwhile stays.
func TestUninstallFromAnAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: object(names.SystemNamespace, nil)}))
	require.NoError(t, c.Create(t.Context(), &v1alpha1.Mesh{ObjectMeta: object(names.Mesh, nil)}))
	objects := installed(byHelm)
	for _, o := range objects {
		require.NoError(t, c.Create(t.Context(), o))
	}
	ready := objects[0].(*appsv1.Deployment)
	ready.Status = appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	require.NoError(t, c.Status().Update(t.Context(), ready))
	kubeconfig := as(t, cfg, "")

	out, _, err := does(t, "uninstall", "--dry-run", "--kubeconfig", kubeconfig)
	require.NoError(t, err)
	require.Contains(t, out, "  helm uninstall mesh --namespace fairway-system\n")
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, &v1alpha1.Mesh{}), "it was a dry run")

	done := make(chan struct{})
	go func() { // what the operator does
		defer close(done)
		eventually.Passes(t, "the Mesh goes", func(look require.TestingT) {
			err := c.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, &v1alpha1.Mesh{})
			require.True(look, apierrors.IsNotFound(err))
		})
		_ = c.Delete(t.Context(), objects[1])
	}()
	out, notes, err := does(t, "uninstall", "--yes", "--kubeconfig", kubeconfig, "--timeout", "30s")
	<-done
	require.NoError(t, err, notes)
	require.Contains(t, notes, "is gone: no pod is captured any more")
	require.Contains(t, out, "  helm uninstall mesh --namespace fairway-system\n")
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(objects[0]), &appsv1.Deployment{}), "it stays")

	out, _, err = does(t, "uninstall", "--yes", "--kubeconfig", kubeconfig)
	require.NoError(t, err)
	require.Contains(t, out, "There is no Mesh")
}
