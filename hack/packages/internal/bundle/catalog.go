// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/blang/semver/v4"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const (
	packageSchema = "olm.package"
	channelSchema = "olm.channel"
	bundleSchema  = "olm.bundle"
)

// Catalog is a file-based catalogue with this bundle, whose image is named, and with those of a former catalogue of
// the package, if there is one. Channels are made anew, of all versions. It says what opm would render of the image;
// opm is not used, since it takes the image from a registry.
func Catalog(src *source.Source, image string, former []byte) ([]byte, error) {
	own, err := catalogEntry(src, image)
	if err != nil {
		return nil, err
	}
	bundles := map[string]source.Object{}
	before, err := source.Parse(former)
	if err != nil {
		return nil, fmt.Errorf("the former catalogue: %w", err)
	}
	for _, d := range append(before, own) {
		if d.Str("package") == packageName && d.Str("schema") == bundleSchema {
			bundles[d.Str("name")] = d
		}
	}
	versions := make([]semver.Version, 0, len(bundles))
	for name, b := range bundles {
		v, err := versionOf(b)
		if err != nil {
			return nil, fmt.Errorf("the bundle %s: %w", name, err)
		}
		versions = append(versions, v)
	}
	slices.SortFunc(versions, semver.Version.Compare)

	documents := []source.Object{{
		"schema": packageSchema, "name": packageName, "description": description,
		"icon": map[string]any{"base64data": base64.StdEncoding.EncodeToString(icon), "mediatype": "image/svg+xml"},
	}}
	for _, channel := range []string{stable, preview} {
		in := entries(channel, versions)
		if len(in) == 0 {
			continue
		}
		if documents[0]["defaultChannel"] == nil {
			documents[0]["defaultChannel"] = channel
		}
		documents = append(documents, source.Object{
			"schema": channelSchema, "package": packageName, "name": channel, "entries": in,
		})
	}
	for _, v := range versions {
		documents = append(documents, bundles[csvName(v)])
	}
	b, err := source.Print(documents)
	return append([]byte("---\n"), b...), err
}

// catalogEntry is this version's bundle in a catalogue.
func catalogEntry(src *source.Source, image string) (source.Object, error) {
	csv, err := clusterServiceVersion(src)
	if err != nil {
		return nil, err
	}
	version, err := src.Version()
	if err != nil {
		return nil, err
	}
	return source.Object{
		"schema": bundleSchema, "package": packageName, "name": csv.Name(), "image": image,
		"properties":    properties(csv, version),
		"relatedImages": append(relatedImages(src), map[string]any{"name": "", "image": image}),
	}, nil
}

// versionOf a catalogue's bundle is in its properties.
func versionOf(b source.Object) (semver.Version, error) {
	all, _ := b["properties"].([]any)
	for _, p := range all {
		if m, ok := p.(map[string]any); ok && m["type"] == packageSchema {
			return semver.Parse(source.Object(m).Str("value", "version"))
		}
	}
	return semver.Version{}, fmt.Errorf("it has no property %s", packageSchema)
}

func properties(csv source.Object, version string) []any {
	var out []any
	kinds, _ := csv.At("spec", "customresourcedefinitions", "owned").([]any)
	for _, o := range kinds {
		crd, _ := o.(map[string]any)
		out = append(out, map[string]any{"type": "olm.gvk", "value": map[string]any{
			"group": groupOf(crd), "kind": crd["kind"], "version": crd["version"],
		}})
	}
	metadata := map[string]any{
		"annotations":     csv.At("metadata", "annotations"),
		"labels":          csv.At("metadata", "labels"),
		"crdDescriptions": csv.At("spec", "customresourcedefinitions"),
	}
	for _, field := range []string{
		"description", "displayName", "installModes", "keywords", "links", "maintainers", "maturity", "minKubeVersion",
		"provider",
	} {
		metadata[field] = csv.At("spec", field)
	}
	return append(out,
		map[string]any{"type": packageSchema, "value": map[string]any{"packageName": packageName, "version": version}},
		map[string]any{"type": "olm.csv.metadata", "value": metadata})
}

// groupOf a CRD is what follows the plural in its name.
func groupOf(crd map[string]any) string {
	name, _ := crd["name"].(string)
	_, group, _ := strings.Cut(name, ".")
	return group
}
