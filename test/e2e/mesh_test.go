// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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

// enableUndeploy must be set, because the test needs `make undeploy` and `make deploy` of the working tree.
const enableUndeploy = "FAIRWAY_E2E_UNDEPLOY"

// Removing Fairway as a whole, in whatever order, leaves pods uncaptured and working, and nothing that hangs.
func TestUndeploy(t *testing.T) {
	if os.Getenv(enableUndeploy) == "" {
		t.Skipf("runs make undeploy and make deploy: set %s=1", enableUndeploy)
	}
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	before := s.pod("server")
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	t.Cleanup(func() {
		run(context.Background(), t, "deploy")
		restore(mesh)
		meshReady(t)
	})
	for name, undeploy := range map[string]func(*testing.T){
		"in order": func(t *testing.T) {
			t.Helper()
			run(t.Context(), t, "undeploy")
			s.captureIs(corev1.ConditionFalse, "client", "server")
		},
		"all at once": func(t *testing.T) { t.Helper(); kubectl(t, "delete", "-k", "../../config/default", "--timeout=60s") },
		// As the Operator Lifecycle Manager does: the agents' rights go with the operator, while the Mesh is there.
		"the operator first": func(t *testing.T) {
			t.Helper()
			kubectl(t, "delete", "-n", names.SystemNamespace, "deployment/"+names.OperatorDeployment)
			kubectl(t, "delete", "-k", "../../config/rbac")
			kubectl(t, "delete", "meshes.fairway.dev", names.Mesh, "--timeout=20s")
			eventually.PassesWithin(t, time.Minute, "the node proxies are gone", func(look require.TestingT) {
				require.True(look, gone(t, &appsv1.DaemonSet{}, names.SystemNamespace, names.NodeDaemonSet))
			})
			run(t.Context(), t, "undeploy")
		},
	} {
		t.Run(name, func(t *testing.T) {
			undeploy(t)
			require.True(t, gone(t, &corev1.Namespace{}, "", names.SystemNamespace))
			got := s.many("client", 20, "http://server/")
			require.Empty(t, got.failures())
			// A pod that starts without the mesh starts as if there had never been one.
			late := strings.ReplaceAll(name, " ", "-")
			s.server(late)
			s.service(late, late)
			s.answers("client", "http://"+late+"/", late)

			run(t.Context(), t, "deploy")
			createMesh(t, mesh)
			s.captured("client", "server", late)
			s.answers("client", "http://server/", "server")
			require.Equal(t, before.UID, s.pod("server").UID)
		})
	}
}

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
