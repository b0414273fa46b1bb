// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/release/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const (
	root      = "../../../.."
	namespace = "fairway-system"
)

// generated is the chart of the tree, made once.
var generated = sync.OnceValues(func() (map[string][]byte, error) { return Generate(root, Image{}) })

// load is the chart as Helm reads it.
func load(t *testing.T, image Image) *v2.Chart {
	t.Helper()
	files, err := generated()
	if image != (Image{}) {
		files, err = Generate(root, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, files)
}

func parsed(t *testing.T, files map[string][]byte) *v2.Chart {
	t.Helper()
	var buffered []*archive.BufferedFile
	for name, data := range files {
		buffered = append(buffered, &archive.BufferedFile{Name: name, Data: data})
	}
	c, err := loader.LoadFiles(buffered)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rendering is a rendering by Helm, without a cluster.
type rendering struct {
	namespace, version string
	apis               []string
	image              Image
}

func (r rendering) release(t *testing.T, values string) (*v1.Release, error) {
	t.Helper()
	return r.of(t, load(t, r.image), values)
}

func (r rendering) of(t *testing.T, c *v2.Chart, values string) (*v1.Release, error) {
	t.Helper()
	vals := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &vals); err != nil {
		t.Fatal(err)
	}
	install := action.NewInstall(action.NewConfiguration())
	install.DryRunStrategy, install.ReleaseName = action.DryRunClient, "fairway"
	install.Namespace, install.APIVersions = r.namespace, r.apis
	if install.Namespace == "" {
		install.Namespace = namespace
	}
	if r.version == "" {
		r.version = "v1.36.0"
	}
	version, err := common.ParseKubeVersion(r.version)
	if err != nil {
		t.Fatal(err)
	}
	install.KubeVersion = version
	made, err := install.Run(c, vals)
	if err != nil {
		return nil, err
	}
	rel, ok := made.(*v1.Release)
	if !ok {
		t.Fatalf("a release is a %T", made)
	}
	return rel, nil
}

func (r rendering) objects(t *testing.T, values string) map[string]source.Object {
	t.Helper()
	rel, err := r.release(t, values)
	if err != nil {
		t.Fatal(err)
	}
	list, err := source.Parse([]byte(rel.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	return byKey(t, list)
}

func byKey(t *testing.T, list []source.Object) map[string]source.Object {
	t.Helper()
	out := map[string]source.Object{}
	for _, o := range list {
		key := o.Kind() + " " + o.Name()
		if out[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		out[key] = o
	}
	return out
}

// expected is what kustomize makes of folders of config/, less what the chart leaves to users, and marked as it marks.
func expected(t *testing.T, list ...source.Object) map[string]source.Object {
	t.Helper()
	out := byKey(t, list)
	delete(out, "Namespace "+namespace)
	for _, o := range out {
		if o.Kind() == "CustomResourceDefinition" {
			(&templated{object: o}).set("keep", "metadata", "annotations", "helm.sh/resource-policy")
		}
	}
	return out
}

func kustomized(t *testing.T, folder string) []source.Object {
	t.Helper()
	list, err := source.Render(filepath.Join(root, "config", folder))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func same(t *testing.T, got, want map[string]source.Object) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the chart differs from config/ (-config +chart):\n%s", diff)
	}
}

// TestDefault: with default values the release is config/default, object by object.
func TestDefault(t *testing.T) {
	same(t, rendering{}.objects(t, ""), expected(t, kustomized(t, "default")...))
}

// TestBeforeKubernetes136: agents have the right to read pods only where nothing narrower exists.
func TestBeforeKubernetes136(t *testing.T) {
	before := append(kustomized(t, "default"), kustomized(t, "agents-before-1.36")...)
	for _, version := range []string{"v1.33.0", "v1.35.9", "v1.35.3-gke.1234", "v1.34.1+k3s1"} {
		same(t, rendering{version: version}.objects(t, ""), expected(t, before...))
	}
	for _, version := range []string{"v1.36.0", "v1.36.1-eks-abcdef", "v1.37.0-alpha.1"} {
		same(t, rendering{version: version}.objects(t, ""), expected(t, kustomized(t, "default")...))
	}
	_, err := rendering{version: "v1.32.5"}.release(t, "")
	if err == nil || !strings.Contains(err.Error(), "1.33") {
		t.Errorf("on Kubernetes 1.32: %v", err)
	}
}

// TestComponents: values for the components of config/components do what these do.
func TestComponents(t *testing.T) {
	for component, values := range map[string]string{
		"control-plane": "controlPlane: {enabled: true}", "spire": "spire: {enabled: true}",
	} {
		want, err := withComponent(root, component)
		if err != nil {
			t.Fatal(err)
		}
		same(t, rendering{}.objects(t, values), expected(t, want...))
	}
}

// TestReleasedImage: a chart of a release names the image where it is, by digest.
func TestReleasedImage(t *testing.T) {
	image := Image{Repository: "registry.example/mesh/fairway", Digest: "sha256:" + strings.Repeat("0a", 32)}
	d := operator(t, rendering{image: image}.objects(t, ""))
	want := image.Repository + "@" + image.Digest
	if got := source.Containers(d)[0].Str("image"); got != want {
		t.Errorf("image %s, want %s", got, want)
	}
	if got := envVar(source.Containers(d)[0], "RELATED_IMAGE_FAIRWAY"); got != want {
		t.Errorf("image of agents %s, want %s", got, want)
	}
}

func operator(t *testing.T, objects map[string]source.Object) source.Object {
	t.Helper()
	d := objects["Deployment fairway-operator"]
	if d == nil {
		t.Fatal("there is no operator")
	}
	return d
}

// TestBracesOfManifestsAreNoTemplates: what looks like a template in a manifest is text.
func TestBracesOfManifestsAreNoTemplates(t *testing.T) {
	files, err := Generate(root, Image{})
	if err != nil {
		t.Fatal(err)
	}
	o := source.Object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "braces"},
		"data": map[string]any{"key": "{{ .Values.image }} and {{{"},
	}
	if err := add(files, o, "", "", additions{}); err != nil {
		t.Fatal(err)
	}
	rel, err := rendering{}.of(t, parsed(t, files), "")
	if err != nil {
		t.Fatal(err)
	}
	list, err := source.Parse([]byte(rel.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	if got := byKey(t, list)["ConfigMap braces"]; !reflect.DeepEqual(got, o) {
		t.Errorf("got %v", got)
	}
}

// TestDeterministic: two runs give the same bytes.
func TestDeterministic(t *testing.T) {
	a, err := Generate(root, Image{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(root, Image{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs differ")
	}
}
