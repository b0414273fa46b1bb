// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const root = "../../../.."

func files(t *testing.T) map[string][]byte {
	t.Helper()
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Generate(src)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func csv(t *testing.T, all map[string][]byte) source.Object {
	t.Helper()
	o := source.Object{}
	if err := yaml.Unmarshal(all["manifests/fairway.clusterserviceversion.yaml"], &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestCurrent: bundle/ is what config/ says, with nothing beside it.
func TestCurrent(t *testing.T) {
	want := files(t)
	dir := filepath.Join(root, "bundle")
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found++
		if !bytes.Equal(want[filepath.ToSlash(name)], got) {
			t.Errorf("bundle/%s is not current: run make bundle", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(want) {
		t.Errorf("bundle/ has %d files, want %d: run make bundle", found, len(want))
	}
}

// TestDeterministic: two runs give the same bytes, and none of them is a time.
func TestDeterministic(t *testing.T) {
	a, b := files(t), files(t)
	stamp := regexp.MustCompile(`createdAt|creationTimestamp:|\b20\d\d-\d\d-\d\d`)
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs between two runs", name)
		}
		if m := stamp.Find(a[name]); m != nil {
			t.Errorf("%s has a timestamp: %s", name, m)
		}
	}
}

// TestClusterServiceVersion checks what the lifecycle manager's own validation would.
func TestClusterServiceVersion(t *testing.T) {
	all := files(t)
	c := csv(t, all)
	version := c.Str("spec", "version")
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`).MatchString(version) {
		t.Errorf("version %q is not semantic", version)
	}
	if c.Name() != "fairway.v"+version {
		t.Errorf("name is %q", c.Name())
	}
	modes := map[string]bool{}
	for _, m := range list(c.At("spec", "installModes")) {
		modes[m.Str("type")] = m["supported"] == true
	}
	if len(modes) != 4 || !modes["AllNamespaces"] {
		t.Errorf("install modes are %v", modes)
	}
	for _, field := range []string{"displayName", "description", "maturity", "minKubeVersion"} {
		if c.Str("spec", field) == "" {
			t.Errorf("spec.%s is empty", field)
		}
	}
	// What the cluster needs is said once more for people.
	install, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "Kubernetes " + strings.TrimSuffix(c.Str("spec", "minKubeVersion"), ".0") +
		" or later"; !strings.Contains(string(install), want) {
		t.Errorf("docs/install.md does not say %q", want)
	}
	for _, field := range []string{"maintainers", "keywords", "relatedImages", "links"} {
		if l, _ := c.At("spec", field).([]any); len(l) == 0 {
			t.Errorf("spec.%s is empty", field)
		}
	}
}

// TestOwnedKinds: each CRD of the bundle is owned, described, and has an example; nothing else is owned.
func TestOwnedKinds(t *testing.T) {
	all := files(t)
	c := csv(t, all)
	var examples []source.Object
	if err := json.Unmarshal([]byte(c.Str("metadata", "annotations", "alm-examples")), &examples); err != nil {
		t.Fatal(err)
	}
	exampled := map[string]bool{}
	for _, e := range examples {
		exampled[e.Str("apiVersion")+"/"+e.Kind()] = true
	}
	ownedNames := map[string]bool{}
	for _, o := range list(c.At("spec", "customresourcedefinitions", "owned")) {
		ownedNames[o.Str("name")] = true
		if o.Str("description") == "" || o.Str("displayName") == "" {
			t.Errorf("%s is not described", o.Str("name"))
		}
		if key := "fairway.dev/" + o.Str("version") + "/" + o.Kind(); !exampled[key] {
			t.Errorf("%s has no example", key)
		}
	}
	crds := 0
	for name, content := range all {
		o := source.Object{}
		if err := yaml.Unmarshal(content, &o); err != nil || o.Kind() != "CustomResourceDefinition" {
			continue
		}
		crds++
		if !ownedNames[o.Name()] {
			t.Errorf("%s (%s) is not owned", o.Name(), name)
		}
	}
	if crds == 0 || crds != len(ownedNames) {
		t.Errorf("%d CRDs, %d owned", crds, len(ownedNames))
	}
}

// TestPermissions: every service account that a pod runs as has permissions, and none has wildcards.
func TestPermissions(t *testing.T) {
	c := csv(t, files(t))
	accounts := map[string]bool{}
	for _, p := range list(c.At("spec", "install", "spec", "clusterPermissions")) {
		accounts[p.Str("serviceAccountName")] = true
		rules, _ := p["rules"].([]any)
		if len(rules) == 0 {
			t.Errorf("permissions of %s are empty", p.Str("serviceAccountName"))
		}
		for _, r := range list(p["rules"]) {
			for _, field := range []string{"apiGroups", "resources", "verbs"} {
				values, _ := r[field].([]any)
				if len(values) == 0 {
					t.Errorf("a rule of %s has no %s", p.Str("serviceAccountName"), field)
				}
				for _, v := range values {
					if s, _ := v.(string); strings.Contains(s, "*") {
						t.Errorf("%s has a wildcard in %s", p.Str("serviceAccountName"), field)
					}
				}
			}
		}
	}
	// The lifecycle manager would make ClusterRoles of these.
	if p := c.At("spec", "install", "spec", "permissions"); p != nil {
		t.Errorf("permissions in a namespace are in the ClusterServiceVersion: %v", p)
	}
	for _, want := range []string{"fairway-operator", "fairway-node"} {
		if !accounts[want] {
			t.Errorf("service account %s has no permissions", want)
		}
	}
	for _, d := range list(c.At("spec", "install", "spec", "deployments")) {
		if sa := d.Str("spec", "template", "spec", "serviceAccountName"); !accounts[sa] {
			t.Errorf("Deployment %s runs as %q, which has no permissions", d.Str("name"), sa)
		}
	}
}

func TestAnnotations(t *testing.T) {
	all := files(t)
	o := source.Object{}
	if err := yaml.Unmarshal(all["metadata/annotations.yaml"], &o); err != nil {
		t.Fatal(err)
	}
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	labels, err := Labels(src)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range labels {
		a, _ := o["annotations"].(map[string]any)
		if a[key] != value {
			t.Errorf("annotation %s is %v", key, a[key])
		}
		if !strings.Contains(string(all["bundle.Dockerfile"]), "LABEL "+key+"="+value+"\n") {
			t.Errorf("bundle.Dockerfile lacks %s", key)
		}
	}
	// Every folder that annotations and files name is in the image.
	for name := range all {
		if dir, _, ok := strings.Cut(name, "/"); ok && !strings.Contains(string(all["bundle.Dockerfile"]), "COPY "+dir) {
			t.Errorf("bundle.Dockerfile doesn't copy %s", name)
		}
	}
}

func list(v any) []source.Object {
	items, _ := v.([]any)
	out := make([]source.Object, 0, len(items))
	for _, i := range items {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
