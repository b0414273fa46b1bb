// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// fieldManager is who applies: Argo CD's own name, since its diff asks who set a field.
const fieldManager = "argocd-controller"

// cluster is the one that KUBECONFIG names, with the mesh.
type cluster struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	require.NoError(t, err)
	config.QPS, config.Burst = 100, 200
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	found, err := discovery.NewDiscoveryClientForConfig(config)
	require.NoError(t, err)
	return cluster{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))}
}

// of is where objects of a kind are. The namespace counts for kinds that have any.
func (c cluster) of(t *testing.T, obj *unstructured.Unstructured, namespace string) dynamic.ResourceInterface {
	t.Helper()
	gvk := obj.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	require.NoError(t, err)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return c.client.Resource(mapping.Resource)
	}
	return c.client.Resource(mapping.Resource).Namespace(namespace)
}

func (c cluster) apply(t *testing.T, namespace string, obj *unstructured.Unstructured) {
	t.Helper()
	_, err := c.of(t, obj, namespace).Apply(t.Context(), obj.GetName(), obj, metav1.ApplyOptions{
		FieldManager: fieldManager, Force: true,
	})
	require.NoError(t, err)
}

// namespace makes one, empty and fresh, that goes with the test.
func (c cluster) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetName(name)
	ns.SetLabels(labels)
	all := c.of(t, ns, "")
	// The test's context has ended by the time of its cleanup.
	remove := func(ctx context.Context) {
		if err := all.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	}
	remove(t.Context())
	eventually(t, "namespace "+name+" of an earlier run is gone", func() error {
		_, err := all.Get(t.Context(), name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			return errors.New("it is still there")
		}
		return err
	})
	t.Cleanup(func() { remove(context.Background()) })
	c.apply(t, "", ns)
}

// patch changes a field of the Mesh.
func (c cluster) patch(ctx context.Context, t *testing.T, obj *unstructured.Unstructured, patch string) {
	t.Helper()
	_, err := c.of(t, obj, "").Patch(ctx, obj.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}

func objects(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	d := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	var out []*unstructured.Unstructured
	for {
		o := &unstructured.Unstructured{}
		err := d.Decode(o)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// output is what a command prints, and whether all is well by its exit code.
func output(t *testing.T, command string, args ...string) (text string, well bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		require.NoError(t, err, "%s", out)
	}
	return string(out), err == nil
}
