// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// deleteMesh waits until all of the Mesh is gone and sees to it that it comes back when the test ends.
func deleteMesh(t *testing.T) *v1alpha1.Mesh {
	t.Helper()
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	t.Cleanup(func() {
		restore(mesh)
		meshReady(t)
	})
	require.NoError(t, world.client.Delete(t.Context(), mesh))
	eventually.PassesWithin(t, 2*time.Minute, "the node proxies go once the nodes are clean", func(look require.TestingT) {
		require.True(look, gone(t, &appsv1.DaemonSet{}, names.SystemNamespace, names.NodeDaemonSet))
	})
	return mesh
}

// restore is for tests that end before they have created the Mesh again.
func restore(mesh *v1alpha1.Mesh) {
	fresh := &v1alpha1.Mesh{ObjectMeta: metaOf(mesh.Name), Spec: mesh.Spec}
	_ = world.client.Create(context.Background(), fresh) // it is there already if all went well
}

// createMesh waits until the mesh is ready again.
func createMesh(t *testing.T, mesh *v1alpha1.Mesh) {
	t.Helper()
	fresh := &v1alpha1.Mesh{ObjectMeta: metaOf(mesh.Name), Spec: mesh.Spec}
	require.NoError(t, world.client.Create(t.Context(), fresh))
	eventually.PassesWithin(t, 2*time.Minute, "the Mesh is Ready", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(fresh), fresh))
		require.True(look, meta.IsStatusConditionTrue(fresh.Status.Conditions, v1alpha1.MeshConditionReady),
			"%v", fresh.Status.Conditions)
	})
}

// The mode of the Mesh holds where no label says otherwise. It concerns all pods of the mesh, so this test runs alone.
func TestAStrictMesh(t *testing.T) {
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	s, outside, url := reachedInPlaintext(t)

	t.Cleanup(func() {
		patchMesh(t, fmt.Sprintf(`{"spec":{"mtls":{"mode":%q}}}`, mesh.Spec.MTLS.Mode))
		meshReady(t)
	})
	patchMesh(t, fmt.Sprintf(`{"spec":{"mtls":{"mode":%q}}}`, v1alpha1.MTLSModeStrict))
	outside.refuses("stranger", url)
	s.label(names.LabelMTLSMode, names.MTLSPermissive)
	outside.answers("stranger", url, "server")
}

// gone tells that there is no such object.
func gone(t *testing.T, obj client.Object, namespace, name string) bool {
	t.Helper()
	return apierrors.IsNotFound(world.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, obj))
}

// kubectl must not fail.
func kubectl(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		path = filepath.Join(os.Getenv(apiserver.EnvBin), "kubectl") // the dev cluster's
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
}

// run a target of the Makefile.
func run(ctx context.Context, t *testing.T, target string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", "../..", target)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("make %s: %v\n%s", target, err, out)
	}
}
