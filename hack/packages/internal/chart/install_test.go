// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/hack/packages/internal/apiserver"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// cluster is a real API server, and Helm's actions on it.
type cluster struct {
	*testing.T

	client client.Client
	config *rest.Config
	helm   *action.Configuration
}

func start(t *testing.T) *cluster {
	t.Helper()
	cfg, cl := apiserver.Start(t)
	c := &cluster{T: t, client: cl, config: cfg}
	c.connect()
	return c
}

// connect makes Helm forget what it knows of the cluster, as each of its commands does.
func (c *cluster) connect() {
	c.Helper()
	flags := genericclioptions.NewConfigFlags(false)
	ns := namespace
	flags.Namespace = &ns
	flags.WrapConfigFn = func(*rest.Config) *rest.Config { return rest.CopyConfig(c.config) }
	// They ask for a server before they are given a configuration.
	flags.APIServer = &c.config.Host
	c.helm = action.NewConfiguration()
	if err := c.helm.Init(flags, namespace, "secret"); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) install(chart *v2.Chart, change ...func(*action.Install)) error {
	c.connect()
	i := action.NewInstall(c.helm)
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.WaitStrategy = "fairway", namespace, true, kube.HookOnlyStrategy
	for _, f := range change {
		f(i)
	}
	_, err := i.Run(chart, map[string]any{})
	return err
}

func (c *cluster) upgrade(chart *v2.Chart, values map[string]any) error {
	c.connect()
	u := action.NewUpgrade(c.helm)
	u.Namespace, u.WaitStrategy = namespace, kube.HookOnlyStrategy
	_, err := u.Run("fairway", chart, values)
	return err
}

func (c *cluster) uninstall() {
	c.Helper()
	c.connect()
	u := action.NewUninstall(c.helm)
	u.WaitStrategy = kube.HookOnlyStrategy
	if _, err := u.Run("fairway"); err != nil {
		c.Fatal(err)
	}
}

// get reads an object by what a manifest says of it; nil where it is gone.
func (c *cluster) get(o source.Object) *unstructured.Unstructured {
	c.Helper()
	u := &unstructured.Unstructured{Object: o}
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(u.GroupVersionKind())
	err := c.client.Get(context.Background(), client.ObjectKeyFromObject(u), out)
	if apierrors.IsNotFound(err) || (err == nil && out.GetDeletionTimestamp() != nil) {
		return nil
	}
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// everything is all that is in the cluster, by kind, namespace and name, but for what comes and goes by itself.
func (c *cluster) everything() map[string]bool {
	c.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		c.Fatal(err)
	}
	lists, err := d.ServerPreferredResources()
	if err != nil {
		c.Fatal(err)
	}
	out := map[string]bool{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			c.Fatal(err)
		}
		for _, r := range l.APIResources {
			passing := []string{"Event", "Lease", "APIService", "IPAddress"}
			if !slices.Contains(r.Verbs, "list") || slices.Contains(passing, r.Kind) {
				continue
			}
			found := &unstructured.UnstructuredList{}
			found.SetGroupVersionKind(gv.WithKind(r.Kind + "List"))
			if err := c.client.List(context.Background(), found); err != nil {
				c.Fatalf("%s: %v", r.Kind, err)
			}
			for _, o := range found.Items {
				if o.GetNamespace()+"/"+o.GetName() == "default/kubernetes" {
					continue // the API server makes these once it has started
				}
				out[r.Kind+" "+o.GetNamespace()+"/"+o.GetName()] = true
			}
		}
	}
	return out
}

func (c *cluster) namespace(labels map[string]string) {
	c.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	u.SetName(namespace)
	u.SetLabels(labels)
	if err := c.client.Create(context.Background(), u); err != nil {
		if !apierrors.IsAlreadyExists(err) {
			c.Fatal(err)
		}
		if err := c.client.Get(context.Background(), client.ObjectKeyFromObject(u), u); err != nil {
			c.Fatal(err)
		}
		u.SetLabels(labels)
		if err := c.client.Update(context.Background(), u); err != nil {
			c.Fatal(err)
		}
	}
}

// older is the chart of a version before: a CRD of it lacks a field, and it has an object that later ones lack.
func older(t *testing.T) *v2.Chart {
	t.Helper()
	files, err := generated()
	if err != nil {
		t.Fatal(err)
	}
	files = maps.Clone(files)
	const crd = "templates/crds/fairway.dev_meshes.yaml"
	text := string(files[crd])
	changed := strings.Replace(text, "              outbound:\n", "              formerly:\n", 1)
	if changed == text {
		t.Fatal("the CRD of Meshes has no field outbound")
	}
	files[crd] = []byte(changed)
	files["templates/former.yaml"] = []byte(
		"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: former\n  namespace: fairway-system\n")
	return parsed(t, files)
}

func (c *cluster) hasOutbound() bool {
	c.Helper()
	crd := c.get(source.Object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "meshes.fairway.dev"},
	})
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		c.Fatal(err)
	}
	_, there, err := unstructured.NestedMap(versions[0].(map[string]any),
		"schema", "openAPIV3Schema", "properties", "spec", "properties", "outbound")
	if err != nil {
		c.Fatal(err)
	}
	return there
}

// TestInstall installs an older version by Helm into a real API server, upgrades it, and uninstalls: the upgrade
// reaches the CRDs, and nothing but these and the namespace is left.
func TestInstall(t *testing.T) {
	c := start(t)
	before := c.everything()
	if err := c.install(older(t)); err != nil {
		t.Fatal(err)
	}
	if c.hasOutbound() {
		t.Error("the older CRD isn't there")
	}
	if err := c.upgrade(load(t, Image{}), map[string]any{"replicas": 3}); err != nil {
		t.Fatal(err)
	}
	if !c.hasOutbound() {
		t.Error("the CRD was not upgraded")
	}
	for key, o := range (rendering{}).objects(t, "replicas: 3") {
		if got := c.get(o); got == nil {
			t.Errorf("%s isn't there", key)
		} else if got.GetLabels()["app.kubernetes.io/part-of"] != "fairway" {
			t.Errorf("%s has the labels %v", key, got.GetLabels())
		}
	}
	d := c.get(operator(t, rendering{}.objects(t, "")))
	if n, _, err := unstructured.NestedInt64(d.Object, "spec", "replicas"); err != nil || n != 3 {
		t.Errorf("%d replicas: %v", n, err)
	}
	if c.everything()["ConfigMap fairway-system/former"] {
		t.Error("an object that the chart lacks now is left")
	}

	mesh := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "fairway.dev/v1alpha1", "kind": "Mesh", "metadata": map[string]any{"name": "default"},
	}}
	if err := c.client.Create(context.Background(), mesh); err != nil {
		t.Fatal(err)
	}
	c.uninstall()
	for key := range c.everything() {
		crd := strings.HasPrefix(key, "CustomResourceDefinition ") && strings.HasSuffix(key, ".fairway.dev")
		if !before[key] && !crd && key != "Mesh /default" && key != "Namespace /"+namespace {
			t.Errorf("%s is left", key)
		}
	}
	if !c.everything()["Mesh /default"] {
		t.Error("users' objects went with the release")
	}
	// The CRDs that are left are no obstacle for the next time.
	if err := c.install(load(t, Image{})); err != nil {
		t.Errorf("install once more: %v", err)
	}
}

// TestInstallInto: a namespace that keeps the node proxies out is refused before anything is made, and what kubectl
// installed can be taken over.
func TestInstallInto(t *testing.T) {
	c := start(t)
	c.namespace(map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
	err := c.install(load(t, Image{}))
	if err == nil || !strings.Contains(err.Error(), "kubectl label namespace fairway-system") {
		t.Fatalf("into a namespace of level baseline: %v", err)
	}
	c.namespace(map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
	applied := kustomized(t, "default")
	for _, o := range applied {
		if o.Kind() == "Namespace" {
			continue
		}
		u := &unstructured.Unstructured{Object: o}
		if err := c.client.Apply(context.Background(), client.ApplyConfigurationFromUnstructured(u),
			client.FieldOwner("kubectl")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.install(load(t, Image{})); err == nil {
		t.Error("Helm takes over what it has not made without being told to")
	}
	if err := c.install(load(t, Image{}), func(i *action.Install) {
		i.TakeOwnership, i.ForceConflicts = true, true
	}); err != nil {
		t.Errorf("take over what kubectl installed: %v", err)
	}
}
