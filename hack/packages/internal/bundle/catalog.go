// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const channel = "alpha"

// Labels are what the bundle's image says of itself; the same as its metadata/annotations.yaml.
func Labels() map[string]string {
	out := map[string]string{}
	for key, value := range annotations() {
		out[key] = fmt.Sprint(value)
	}
	return out
}

// Catalog is a file-based catalog with this one bundle, whose image is named. It says what opm would render of that
// image; opm is not used, since it takes the image from a registry.
func Catalog(src *source.Source, image string) ([]byte, error) {
	csv, err := clusterServiceVersion(src)
	if err != nil {
		return nil, err
	}
	version, err := src.Version()
	if err != nil {
		return nil, err
	}
	related := append(relatedImages(src), map[string]any{"name": "", "image": image})
	documents := []any{
		map[string]any{
			"schema": "olm.package", "name": packageName, "defaultChannel": channel, "description": description,
		},
		map[string]any{
			"schema": "olm.channel", "package": packageName, "name": channel,
			"entries": []any{map[string]any{"name": csv.Name()}},
		},
		map[string]any{
			"schema": "olm.bundle", "package": packageName, "name": csv.Name(), "image": image,
			"properties": properties(src, csv, version), "relatedImages": related,
		},
	}
	var out bytes.Buffer
	for _, d := range documents {
		b, err := yaml.Marshal(d)
		if err != nil {
			return nil, err
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.Bytes(), nil
}

func properties(src *source.Source, csv source.Object, version string) []any {
	var out []any
	for _, o := range owned(src) {
		crd, _ := o.(map[string]any)
		name, _ := crd["name"].(string)
		_, group, _ := strings.Cut(name, ".")
		out = append(out, map[string]any{"type": "olm.gvk", "value": map[string]any{
			"group": group, "kind": crd["kind"], "version": crd["version"],
		}})
	}
	metadata := map[string]any{
		"annotations":     csv.At("metadata", "annotations"),
		"crdDescriptions": csv.At("spec", "customresourcedefinitions"),
	}
	for _, field := range []string{
		"description", "displayName", "installModes", "keywords", "links", "maintainers", "maturity", "minKubeVersion",
		"provider",
	} {
		metadata[field] = csv.At("spec", field)
	}
	return append(out,
		map[string]any{"type": "olm.package", "value": map[string]any{"packageName": packageName, "version": version}},
		map[string]any{"type": "olm.csv.metadata", "value": metadata})
}
