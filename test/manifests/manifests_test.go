// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package manifests tests that a real API server takes everything that users apply: config/default, the samples and the
// bundle's manifests.
package manifests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// server is one API server for all tests of the package. Its channel has all that documents and samples show.
var server = apiserver.Shared{Options: apiserver.Options{Fairway: true, GatewayAPI: apiserver.Experimental}}

func TestMain(m *testing.M) { server.Main(m) }

func newClient(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(server.Config(t), client.Options{})
	require.NoError(t, err)
	return c
}

func TestManifests(t *testing.T) {
	c := newClient(t)
	apply := func(t *testing.T, manifests string) {
		t.Helper()
		for _, o := range apiserver.Objects(t, manifests) {
			var refused error
			what := fmt.Sprintf("the API server takes %s %s", o.GetKind(), o.GetName())
			// A kind whose definition has just been applied once more is not served for a moment.
			eventually.NoError(t, what, func() error {
				refused = c.Apply(context.Background(), client.ApplyConfigurationFromUnstructured(o),
					client.FieldOwner("kubectl"), client.ForceOwnership)
				if apierrors.IsNotFound(refused) {
					return refused
				}
				return nil
			})
			require.NoError(t, refused, what)
		}
	}
	config := filepath.Join(apiserver.Root(), "config")
	rendered := kustomize(t, filepath.Join(config, "default"))
	apply(t, rendered)
	apply(t, kustomize(t, filepath.Join(config, "agents-before-1.36")))
	samples, err := filepath.Glob(filepath.Join(config, "samples", "[fgn]*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, samples)
	for _, file := range samples {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			apply(t, string(raw))
			// Each sample of a Mesh is one of a new Mesh.
			mesh := &unstructured.Unstructured{}
			mesh.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Mesh"))
			mesh.SetName(names.Mesh)
			require.NoError(t, client.IgnoreNotFound(c.Delete(context.Background(), mesh)))
		})
	}
	t.Run("images", func(t *testing.T) { require.NotZero(t, checkImages(t, rendered)) })
}

// TestOperatorPlacement renders what docs/install.md says of keeping the operator off workers, and of SPIRE.
func TestOperatorPlacement(t *testing.T) {
	dir := t.TempDir()
	config, err := filepath.Rel(dir, filepath.Join(apiserver.Root(), "config"))
	require.NoError(t, err)
	render := func(t *testing.T, kustomization string) appsv1.Deployment {
		t.Helper()
		kustomization = strings.ReplaceAll(kustomization, "<path or URL>/config", config)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600))
		for _, o := range apiserver.Objects(t, kustomize(t, dir)) {
			if o.GetKind() == "Deployment" {
				var d appsv1.Deployment
				require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d))
				return d
			}
		}
		t.Fatal("no Deployment")
		return appsv1.Deployment{}
	}
	var examples []string
	for _, b := range pages(t)["docs/install.md"].blocks {
		if b.note == noteKustomization {
			examples = append(examples, b.text)
		}
	}
	require.Len(t, examples, 3)

	spec := render(t, examples[0]).Spec.Template.Spec
	require.Equal(t, map[string]string{"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": ""},
		spec.NodeSelector)
	require.Contains(t, spec.Tolerations, corev1.Toleration{
		Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists,
		Effect: corev1.TaintEffectNoSchedule,
	})
	spec = render(t, examples[1]).Spec.Template.Spec
	require.Equal(t, map[string]string{"kubernetes.io/os": "linux", "example.org/trusted": "true"}, spec.NodeSelector)
	require.Contains(t, spec.Tolerations, corev1.Toleration{
		Key: "example.org/trusted", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule,
	})
	spec = render(t, examples[2]).Spec.Template.Spec
	require.Equal(t, []corev1.Volume{{Name: "spire", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: names.SPIREDriver, ReadOnly: new(true),
	}}}}, spec.Volumes)
	require.Equal(t, []corev1.VolumeMount{{Name: "spire", MountPath: names.SPIREDir, ReadOnly: true}},
		spec.Containers[0].VolumeMounts)
}

// checkImages compares the operator's Deployment with the names that the code and the dev cluster's images use.
func checkImages(t *testing.T, rendered string) (checked int) {
	t.Helper()
	for _, o := range apiserver.Objects(t, rendered) {
		if o.GetKind() != "Deployment" {
			continue
		}
		list, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		require.NoError(t, err)
		for _, item := range list {
			container, _ := item.(map[string]any)
			require.Equal(t, names.Image, container["image"])
			env, _ := container["env"].([]any)
			for _, e := range env {
				v, _ := e.(map[string]any)
				switch v["name"] {
				case "RELATED_IMAGE_FAIRWAY":
					require.Equal(t, names.Image, v["value"])
					checked++
				case "RELATED_IMAGE_ENVOY":
					require.Equal(t, names.EnvoyImage, v["value"])
					checked++
				}
			}
		}
	}
	return checked
}

// kustomize renders a folder with the kubectl that the dev cluster builds.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	bin, err := apiserver.BinDir()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd := exec.CommandContext(context.Background(), filepath.Join(bin, "kubectl"), "kustomize", dir)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return string(out)
}
