// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bundle makes the bundle for the Operator Lifecycle Manager: the ClusterServiceVersion with the operator's
// Deployment and permissions, the CRDs, and what else config/default holds that a bundle may.
package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/blang/semver/v4"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const (
	packageName = "fairway"
	repository  = "https://github.com/fairway-mesh/fairway"
	header      = "# Generated from config/ by \"make bundle\". Do not edit.\n"
)

// Generate makes the files of the bundle, by name.
func Generate(src *source.Source) (map[string][]byte, error) {
	files := map[string][]byte{}
	add := func(name string, content any) error {
		b, err := yaml.Marshal(content)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[name] = append([]byte(header), b...)
		return nil
	}
	version, err := parsedVersion(src)
	if err != nil {
		return nil, err
	}
	csv, err := clusterServiceVersion(src)
	if err != nil {
		return nil, err
	}
	if err := add("manifests/"+packageName+".clusterserviceversion.yaml", csv); err != nil {
		return nil, err
	}
	for _, o := range src.Objects {
		name, ok := manifestName(src, o)
		if !ok {
			continue
		}
		// The namespace is where the user installs the bundle.
		if meta, ok := o["metadata"].(map[string]any); ok {
			delete(meta, "namespace")
		}
		if err := add("manifests/"+name, o); err != nil {
			return nil, err
		}
	}
	if err := add("metadata/annotations.yaml", map[string]any{"annotations": annotations(version)}); err != nil {
		return nil, err
	}
	if err := add("tests/scorecard/config.yaml", scorecard()); err != nil {
		return nil, err
	}
	files["bundle.Dockerfile"] = []byte(dockerfile(version))
	return files, nil
}

// manifestName is the file of an object that goes into the bundle as it is. Deployments, service accounts and what
// these may do in all namespaces are in the ClusterServiceVersion; the namespace is the user's.
//
// What they may do in their own namespace is not: of Roles in the ClusterServiceVersion of an operator for all
// namespaces the lifecycle manager makes ClusterRoles, too, by which the operator could read each Secret of the
// cluster. Roles that are manifests it leaves as they are.
func manifestName(src *source.Source, o source.Object) (string, bool) {
	switch o.Kind() {
	case "CustomResourceDefinition":
		return o.Str("spec", "group") + "_" + o.Str("spec", "names", "plural") + ".yaml", true
	case "Service", "PodDisruptionBudget", "Role", "RoleBinding":
		return o.Name() + "_" + strings.ToLower(o.Kind()) + ".yaml", true
	case "ClusterRole":
		bound := func(b source.Object) bool {
			return b.Str("roleRef", "kind") == o.Kind() && b.Str("roleRef", "name") == o.Name()
		}
		if !slices.ContainsFunc(src.Of("ClusterRoleBinding"), bound) { // it is for users
			return o.Name() + "_clusterrole.yaml", true
		}
	}
	return "", false
}

const ofBundle = "operators.operatorframework.io.bundle."

// annotations are what the bundle says of itself to the tools that take it into catalogues.
func annotations(version semver.Version) map[string]any {
	channels := channelsOf(version)
	return map[string]any{
		ofBundle + "mediatype.v1":       "registry+v1",
		ofBundle + "manifests.v1":       "manifests/",
		ofBundle + "metadata.v1":        "metadata/",
		ofBundle + "package.v1":         packageName,
		ofBundle + "channels.v1":        strings.Join(channels, ","),
		ofBundle + "channel.default.v1": channels[0],

		"operators.operatorframework.io.test.mediatype.v1": "scorecard+v1",
		"operators.operatorframework.io.test.config.v1":    "tests/scorecard/",

		// The first that has the Kubernetes of minKubeVersion, and all later ones.
		"com.redhat.openshift.versions": "v4.20",
	}
}

// Labels are what the bundle's image says of itself; the same as its metadata/annotations.yaml.
func Labels(src *source.Source) (map[string]string, error) {
	version, err := parsedVersion(src)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for key, value := range annotations(version) {
		out[key] = fmt.Sprint(value)
	}
	return out, nil
}

func dockerfile(version semver.Version) string {
	var b strings.Builder
	b.WriteString(header + "FROM scratch\n\n")
	all := annotations(version)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "LABEL %s=%s\n", name, all[name])
	}
	b.WriteString("\nCOPY manifests /manifests/\nCOPY metadata /metadata/\nCOPY tests/scorecard /tests/scorecard/\n")
	return b.String()
}

// scorecard has operator-sdk run its own suites on the bundle.
func scorecard() any {
	const image = "quay.io/operator-framework/scorecard-test:v1.41.1"
	var tests []any
	for _, name := range []string{
		"basic-check-spec", "olm-bundle-validation", "olm-crds-have-validation", "olm-crds-have-resources",
		"olm-spec-descriptors", "olm-status-descriptors",
	} {
		suite, _, _ := strings.Cut(name, "-")
		tests = append(tests, map[string]any{
			"image": image, "entrypoint": []any{"scorecard-test", name},
			"labels":  map[string]any{"suite": suite, "test": name + "-test"},
			"storage": map[string]any{"spec": map[string]any{"mountPath": map[string]any{}}},
		})
	}
	return map[string]any{
		"apiVersion": "scorecard.operatorframework.io/v1alpha3", "kind": "Configuration",
		"metadata": map[string]any{"name": "config"},
		"stages":   []any{map[string]any{"parallel": true, "tests": tests}},
		"storage":  map[string]any{"spec": map[string]any{"mountPath": map[string]any{}}},
	}
}

func parsedVersion(src *source.Source) (semver.Version, error) {
	version, err := src.Version()
	if err != nil {
		return semver.Version{}, err
	}
	v, err := semver.Parse(version)
	if err != nil {
		return v, fmt.Errorf("version %q: %w", version, err)
	}
	return v, nil
}
