// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// TestDescriptors: each kind has some, with words for people, and each names a field of the CRD.
func TestDescriptors(t *testing.T) {
	all := files(t)
	c := csv(t, all)
	for _, o := range list(c.At("spec", "customresourcedefinitions", "owned")) {
		if specFields[o.Kind()] == nil || len(list(o["resources"])) == 0 {
			t.Errorf("%s has no descriptors, or no resources", o.Kind())
		}
		for _, part := range []string{"spec", "status"} {
			for _, d := range list(o.At(part + "Descriptors")) {
				shown, _ := d["x-descriptors"].([]any)
				if d.Str("displayName") == "" || len(shown) == 0 {
					t.Errorf("%s: %v", o.Kind(), d)
				}
				if d.Str("description") == "" {
					t.Errorf("%s.%s of %s is not described", part, d.Str("path"), o.Kind())
				}
			}
		}
		if o.Kind() == "Mesh" {
			if len(list(o["statusDescriptors"])) == 0 {
				t.Error("the Mesh has no descriptors of its status")
			}
			mode := list(o["specDescriptors"])[0]
			shown, _ := mode["x-descriptors"].([]any)
			if mode.Str("path") != "mtls.mode" || len(shown) != 2 ||
				!slices.Contains(shown, any("urn:alm:descriptor:com.tectonic.ui:select:Permissive")) {
				t.Errorf("the mode is shown as %v", mode)
			}
		}
	}
	schema := source.Object{"properties": map[string]any{"spec": map[string]any{}}}
	if _, err := descriptors(schema, "spec", []field{{"former", "Former"}}); err == nil {
		t.Error("a field that isn't there can be described")
	}
	for kind := range specFields {
		if !strings.Contains(string(all["manifests/fairway.clusterserviceversion.yaml"]), "kind: "+kind+"\n") {
			t.Errorf("there are descriptors for %s, which the bundle doesn't own", kind)
		}
	}
}

// TestAnnotationsOfTheCSV: examples are of the bundle's own kinds, and what a console creates first is the Mesh.
func TestAnnotationsOfTheCSV(t *testing.T) {
	c := csv(t, files(t))
	at := func(name string) string { return c.Str("metadata", "annotations", name) }
	var examples []source.Object
	if err := json.Unmarshal([]byte(at("alm-examples")), &examples); err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		if !strings.HasPrefix(e.Str("apiVersion"), "fairway.dev/") {
			t.Errorf("an example is a %s", e.Kind())
		}
	}
	first, namespace := source.Object{}, source.Object{}
	if err := json.Unmarshal([]byte(at("operatorframework.io/initialization-resource")), &first); err != nil {
		t.Fatal(err)
	}
	if first.Kind() != "Mesh" || first.Name() != "default" || first.At("spec", "certificates") != nil {
		t.Errorf("the first object is %v", first)
	}
	if err := json.Unmarshal([]byte(at("operatorframework.io/suggested-namespace-template")), &namespace); err != nil {
		t.Fatal(err)
	}
	if namespace.Name() != at("operatorframework.io/suggested-namespace") ||
		namespace.Str("metadata", "labels", "pod-security.kubernetes.io/enforce") != "privileged" {
		t.Errorf("the namespace is %v", namespace)
	}
	for name, value := range map[string]string{
		"olm.skipRange": ">=0.0.0-0 <0.1.0", "containerImage": "fairway.dev/fairway:v0.1.0",
		"features.operators.openshift.io/disconnected": "false", "features.operators.openshift.io/fips-compliant": "false",
	} {
		if at(name) != value {
			t.Errorf("%s is %q", name, at(name))
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if c.Str("metadata", "labels", "operatorframework.io/arch."+arch) != "supported" {
			t.Errorf("no label for %s", arch)
		}
	}
}

// TestScorecardPasses checks what the scorecard's tests of the operator SDK look at: examples have a spec, whose fields
// have descriptors.
func TestScorecardPasses(t *testing.T) {
	c := csv(t, files(t))
	described := map[string]bool{}
	for _, o := range list(c.At("spec", "customresourcedefinitions", "owned")) {
		for _, d := range list(o["specDescriptors"]) {
			described[o.Kind()+"."+d.Str("path")] = true
		}
	}
	var examples []source.Object
	if err := json.Unmarshal([]byte(c.Str("metadata", "annotations", "alm-examples")), &examples); err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		spec, _ := e.At("spec").(map[string]any)
		if len(spec) == 0 {
			t.Errorf("the example %s %s has no spec", e.Kind(), e.Name())
		}
		for key := range spec {
			if !described[e.Kind()+"."+key] {
				t.Errorf("%s of %s has no descriptor", key, e.Kind())
			}
		}
	}
	if got := spelled("targetRefs"); got != "Target refs" {
		t.Errorf("got %q", got)
	}
}

// TestIcon is the file of the tree, and an image.
func TestIcon(t *testing.T) {
	c := csv(t, files(t))
	icons := list(c.At("spec", "icon"))
	if len(icons) != 1 || icons[0].Str("mediatype") != "image/svg+xml" {
		t.Fatalf("icons are %v", icons)
	}
	b, err := base64.StdEncoding.DecodeString(icons[0].Str("base64data"))
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	elements := map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
	if elements["svg"] != 1 || elements["path"] == 0 || elements["script"]+elements["image"] > 0 {
		t.Errorf("elements are %v", elements)
	}
}

// TestDescription: what a bundle can't bring is in the description and on the page that it refers to.
func TestDescription(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "olm.md"))
	if err != nil {
		t.Fatal(err)
	}
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range src.Objects {
		_, ok := manifestName(src, o)
		switch o.Kind() {
		case "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Namespace":
			continue // in the ClusterServiceVersion, or suggested by it
		}
		if ok {
			continue
		}
		for name, text := range map[string]string{"the description": description, "docs/olm.md": string(page)} {
			if !strings.Contains(text, o.Kind()) {
				t.Errorf("%s doesn't say that the %s %s is to be applied by hand", name, o.Kind(), o.Name())
			}
		}
	}
	for _, word := range []string{"Mesh named `default`", "Before you uninstall", repository + "/blob/main/docs/olm.md"} {
		if !strings.Contains(description, word) {
			t.Errorf("the description doesn't have %q", word)
		}
	}
}

// TestScorecard: every test has an entry point, and both suites of the operator SDK are there.
func TestScorecard(t *testing.T) {
	o := source.Object{}
	if err := yaml.Unmarshal(files(t)["tests/scorecard/config.yaml"], &o); err != nil {
		t.Fatal(err)
	}
	suites := map[string]int{}
	for _, stage := range list(o["stages"]) {
		for _, test := range list(stage["tests"]) {
			if entry, _ := test["entrypoint"].([]any); len(entry) != 2 || entry[0] != "scorecard-test" {
				t.Errorf("the entry point is %v", entry)
			}
			if !regexp.MustCompile(`:v\d+\.\d+\.\d+$`).MatchString(test.Str("image")) {
				t.Errorf("the image is %s", test.Str("image"))
			}
			suites[test.Str("labels", "suite")]++
		}
	}
	if suites["basic"] != 1 || suites["olm"] != 5 || len(suites) != 2 {
		t.Errorf("suites are %v", suites)
	}
}

// TestDisconnected: only with all images by digest does the bundle say that a mirror can have them.
func TestDisconnected(t *testing.T) {
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	sum := "@sha256:" + strings.Repeat("0a", 32)
	for _, step := range []struct {
		set  func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return src.SetImage("registry.example/fairway" + sum) }, false},
		{func() error { return src.SetEnvoy("registry.example/envoy" + sum) }, true},
	} {
		if err := step.set(); err != nil {
			t.Fatal(err)
		}
		if got := features(src)["disconnected"]; got != step.want {
			t.Errorf("with %v it is %v", relatedImages(src), got)
		}
	}
}
