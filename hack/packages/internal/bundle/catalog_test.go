// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// TestCatalog checks what the lifecycle manager's validation of catalogues asks for: a package with its default
// channel, a channel with its entries, and for each entry a bundle with its properties and images.
func TestCatalog(t *testing.T) {
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	const image = "registry.example/fairway-bundle@sha256:aa"
	b, err := Catalog(src, image, nil)
	if err != nil {
		t.Fatal(err)
	}
	documents, err := source.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	bySchema := map[string]source.Object{}
	for _, d := range documents {
		bySchema[d.Str("schema")] = d
	}
	of, ch, bundle := bySchema[packageSchema], channelDocument(documents, stable), bySchema[bundleSchema]
	if len(documents) != 4 || of == nil || ch == nil || bundle == nil {
		t.Fatalf("%d documents: %v", len(documents), bySchema)
	}
	if of.Str("name") != packageName || of.Str("defaultChannel") != ch.Str("name") || ch.Str("package") != packageName {
		t.Errorf("package %v, channel %v", of, ch)
	}
	if entries := list(ch["entries"]); len(entries) != 1 || entries[0].Str("name") != bundle.Str("name") {
		t.Errorf("the channel has %v", entries)
	}
	if bundle.Str("image") != image || bundle.Str("name") != "fairway.v0.1.0" || bundle.Str("package") != packageName {
		t.Errorf("the bundle is %s of %s, image %s", bundle.Str("name"), bundle.Str("package"), bundle.Str("image"))
	}
	var kinds, types []string
	for _, p := range list(bundle["properties"]) {
		switch p.Str("type") {
		case "olm.gvk":
			kinds = append(kinds, p.Str("value", "group")+"/"+p.Str("value", "version")+"/"+p.Str("value", "kind"))
		case "olm.package":
			if p.Str("value", "packageName") != packageName || p.Str("value", "version") != "0.1.0" {
				t.Errorf("got %v", p)
			}
		case "olm.csv.metadata":
			for _, field := range []string{"displayName", "description", "minKubeVersion"} {
				if p.Str("value", field) == "" {
					t.Errorf("olm.csv.metadata lacks %s", field)
				}
			}
		}
		types = append(types, p.Str("type"))
	}
	if !slices.Contains(types, "olm.package") || !slices.Contains(types, "olm.csv.metadata") {
		t.Errorf("properties are %v", types)
	}
	if len(kinds) != len(src.Of("CustomResourceDefinition")) || !slices.Contains(kinds, "fairway.dev/v1alpha1/Mesh") {
		t.Errorf("kinds are %v", kinds)
	}
	var images []string
	for _, i := range list(bundle["relatedImages"]) {
		images = append(images, i.Str("image"))
	}
	for _, want := range []string{image, "fairway.dev/fairway:v0.1.0", "envoyproxy/envoy:"} {
		if !slices.ContainsFunc(images, func(i string) bool { return strings.HasPrefix(i, want) }) {
			t.Errorf("the images %v lack %s", images, want)
		}
	}
}

func channelDocument(documents []source.Object, name string) source.Object {
	for _, d := range documents {
		if d.Str("schema") == channelSchema && d.Str("name") == name {
			return d
		}
	}
	return nil
}

// TestOtherImage: the bundle of a release names the image where it is, for operator and agents, and keeps its version.
func TestOtherImage(t *testing.T) {
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	const image = "registry.example/fairway@sha256:aa"
	if err := src.SetImage(image); err != nil {
		t.Fatal(err)
	}
	out, err := Generate(src)
	if err != nil {
		t.Fatal(err)
	}
	text := string(out["manifests/fairway.clusterserviceversion.yaml"])
	// As an annotation, for the operator, for the agents, and as a related image.
	if n := strings.Count(text, image); n != 4 {
		t.Errorf("the image is named %d times", n)
	}
	if strings.Contains(text, "fairway.dev/fairway:") || csv(t, out).Str("spec", "version") != "0.1.0" {
		t.Error("the former image is left, or the version is not")
	}
}
