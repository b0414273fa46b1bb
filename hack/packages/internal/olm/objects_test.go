// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package olm

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/archive"
	"github.com/fairway-mesh/fairway/hack/packages/internal/bundle"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const (
	root      = "../../../.."
	namespace = "fairway-system"
)

// generated is the bundle of the tree, by file.
func generated(t *testing.T) map[string][]byte {
	t.Helper()
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	files, err := bundle.Generate(src)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func parsed(t *testing.T, files map[string][]byte) *Bundle {
	t.Helper()
	b, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func find(t *testing.T, objects []source.Object, kind, prefix string) source.Object {
	t.Helper()
	for _, o := range objects {
		if o.Kind() == kind && strings.HasPrefix(o.Name(), prefix) {
			return o
		}
	}
	t.Fatalf("no %s %s", kind, prefix)
	return nil
}

// TestObjects: what config/default has is what the bundle becomes, but for what a bundle can't have.
func TestObjects(t *testing.T) {
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parsed(t, generated(t)).Objects(namespace)
	if err != nil {
		t.Fatal(err)
	}
	kinds := func(all []source.Object) map[string]int {
		out := map[string]int{}
		for _, o := range all {
			out[o.Kind()]++
		}
		return out
	}
	want := kinds(src.Objects)
	for _, kind := range []string{"Namespace", "NetworkPolicy", "ResourceQuota"} {
		delete(want, kind)
	}
	if got := kinds(objects); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, o := range objects {
		if o.Str("metadata", "labels", managedLabel) != "true" {
			t.Errorf("%s %s is not marked", o.Kind(), o.Name())
		}
		if in, known := namespaced[o.Kind()]; known && in != (o.Str("metadata", "namespace") == namespace) {
			t.Errorf("%s %s is in namespace %q", o.Kind(), o.Name(), o.Str("metadata", "namespace"))
		}
	}
	if o := objects[0].Kind(); o != "CustomResourceDefinition" {
		t.Errorf("the first object is a %s", o)
	}
}

// TestDeployment has all that the lifecycle manager adds, and what it had is left.
func TestDeployment(t *testing.T) {
	objects, err := parsed(t, generated(t)).Objects(namespace)
	if err != nil {
		t.Fatal(err)
	}
	d := find(t, objects, "Deployment", "fairway-operator")
	at := func(name string) string { return d.Str("spec", "template", "metadata", "annotations", name) }
	for name, want := range map[string]string{
		"olm.operatorNamespace": namespace, "olm.targetNamespaces": "", "prometheus.io/port": "8443",
		"categories": "Networking,Security",
	} {
		if got, ok := d.At("spec", "template", "metadata", "annotations", name).(string); !ok || got != want {
			t.Errorf("annotation %s is %q", name, got)
		}
	}
	if !strings.Contains(at("alm-examples"), "Mesh") {
		t.Error("the annotations of the ClusterServiceVersion are not on the pods")
	}
	for name, want := range map[string]string{
		ownerLabel: "fairway.v0.1.0", ownerNamespaceLabel: namespace, ownerKindLabel: csvKind,
		"app.kubernetes.io/component": "operator",
	} {
		if got := d.Str("metadata", "labels", name); got != want {
			t.Errorf("label %s is %q", name, got)
		}
	}
	if d.At("spec", "revisionHistoryLimit") != int64(1) || d.Str("metadata", "labels", "olm.deployment-spec-hash") == "" {
		t.Error("the history is not limited, or there is no hash")
	}
	var env []string
	for _, e := range list(source.Containers(d)[0]["env"]) {
		env = append(env, e.Str("name")+"="+e.Str("value"))
	}
	for _, want := range []string{"OPERATOR_CONDITION_NAME=fairway.v0.1.0", "POD_NAMESPACE="} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment %v lacks %s", env, want)
		}
	}
}

// TestLifted: Roles of the ClusterServiceVersion are ClusterRoles as well, which is why Fairway's are not there.
func TestLifted(t *testing.T) {
	b := parsed(t, generated(t))
	secrets := func() (in []string) {
		t.Helper()
		objects, err := b.Objects(namespace)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			for _, r := range list(o["rules"]) {
				if resources, _ := r["resources"].([]any); slices.Contains(resources, any("secrets")) {
					in = append(in, o.Kind())
				}
			}
		}
		return in
	}
	if got := secrets(); !slices.Equal(got, []string{"Role"}) {
		t.Errorf("Secrets are granted by %v", got)
	}
	set(b.CSV, []any{map[string]any{"serviceAccountName": "fairway-operator", "rules": []any{map[string]any{
		"apiGroups": []any{""}, "resources": []any{"secrets"}, "verbs": []any{"get"},
	}}}}, "spec", "install", "spec", "permissions")
	if got := secrets(); !slices.Equal(got, []string{"Role", "Role", "ClusterRole"}) {
		t.Errorf("Secrets are granted by %v", got)
	}
}

// TestRead: a folder and the archive of a release are the same bundle.
func TestRead(t *testing.T) {
	files := generated(t)
	dir := t.TempDir()
	if err := source.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	packed, err := archive.TarGz(archive.Files("fairway-bundle", files), time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.tgz")
	if err := os.WriteFile(file, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	want := parsed(t, files)
	for _, path := range []string{dir, file} {
		got, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is another bundle", path)
		}
	}
	for path, want := range map[string]string{
		t.TempDir(): "no ClusterServiceVersion", filepath.Join(dir, "nothing"): "no such file",
		dir + "/bundle.Dockerfile": "gzip",
	} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestRefusals: what the lifecycle manager would refuse, and what isn't made here, is an error.
func TestRefusals(t *testing.T) {
	const name = "manifests/fairway.clusterserviceversion.yaml"
	for want, change := range map[string]func(map[string][]byte){
		"a second ClusterServiceVersion": func(f map[string][]byte) { f["manifests/more.yaml"] = f[name] },
		"may not have a Deployment": func(f map[string][]byte) {
			f["manifests/more.yaml"] = []byte("kind: Deployment\nmetadata: {name: d}\n")
		},
		"all namespaces": changed(t, name, func(o source.Object) { delete(o["spec"].(map[string]any), "installModes") }),
		"webhookdefinitions": changed(t, name, func(o source.Object) {
			set(o, []any{map[string]any{}}, "spec", "webhookdefinitions")
		}),
		"strategy": changed(t, name, func(o source.Object) { set(o, "other", "spec", "install", "strategy") }),
		"serviceAccountName": changed(t, name, func(o source.Object) {
			set(o, []any{map[string]any{}}, "spec", "install", "spec", "permissions")
		}),
		"has no spec": changed(t, name, func(o source.Object) {
			set(o, []any{map[string]any{"name": "d"}}, "spec", "install", "spec", "deployments")
		}),
		"yaml": func(f map[string][]byte) { f[name] = []byte("{") },
	} {
		files := generated(t)
		change(files)
		b, err := Parse(files)
		if err == nil {
			_, err = b.Objects(namespace)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func changed(t *testing.T, name string, change func(source.Object)) func(map[string][]byte) {
	t.Helper()
	return func(files map[string][]byte) {
		o := source.Object{}
		if err := yaml.Unmarshal(files[name], &o); err != nil {
			t.Fatal(err)
		}
		change(o)
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
}
