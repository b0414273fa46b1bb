// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bundle makes the bundle for the Operator Lifecycle Manager: the ClusterServiceVersion with the operator's
// Deployment and permissions, the CRDs, and what else config/default holds that a bundle may.
package bundle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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
	if err := add("metadata/annotations.yaml", map[string]any{"annotations": annotations()}); err != nil {
		return nil, err
	}
	files["bundle.Dockerfile"] = []byte(dockerfile())
	return files, nil
}

// manifestName is the file of an object that goes into the bundle as it is. Deployments, service accounts and their
// permissions are in the ClusterServiceVersion; the namespace is the user's.
func manifestName(src *source.Source, o source.Object) (string, bool) {
	switch o.Kind() {
	case "CustomResourceDefinition":
		return o.Str("spec", "group") + "_" + o.Str("spec", "names", "plural") + ".yaml", true
	case "Service", "PodDisruptionBudget":
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

func annotations() map[string]any {
	return map[string]any{
		"operators.operatorframework.io.bundle.mediatype.v1":       "registry+v1",
		"operators.operatorframework.io.bundle.manifests.v1":       "manifests/",
		"operators.operatorframework.io.bundle.metadata.v1":        "metadata/",
		"operators.operatorframework.io.bundle.package.v1":         packageName,
		"operators.operatorframework.io.bundle.channels.v1":        "alpha",
		"operators.operatorframework.io.bundle.channel.default.v1": "alpha",
	}
}

func dockerfile() string {
	var b strings.Builder
	b.WriteString(header + "FROM scratch\n\n")
	for _, key := range []string{"mediatype", "manifests", "metadata", "package", "channels", "channel.default"} {
		name := "operators.operatorframework.io.bundle." + key + ".v1"
		fmt.Fprintf(&b, "LABEL %s=%s\n", name, annotations()[name])
	}
	b.WriteString("\nCOPY manifests /manifests/\nCOPY metadata /metadata/\n")
	return b.String()
}

func clusterServiceVersion(src *source.Source) (source.Object, error) {
	version, err := src.Version()
	if err != nil {
		return nil, err
	}
	image, err := src.Image()
	if err != nil {
		return nil, err
	}
	install, err := installSpec(src)
	if err != nil {
		return nil, err
	}
	examples, err := json.MarshalIndent(src.Samples, "", "  ")
	if err != nil {
		return nil, err
	}
	namespace, err := src.Find("Namespace", "fairway-system")
	if err != nil {
		return nil, err
	}
	template, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": namespace.Name(), "labels": namespace.At("metadata", "labels")},
	})
	if err != nil {
		return nil, err
	}
	return source.Object{
		"apiVersion": "operators.coreos.com/v1alpha1",
		"kind":       "ClusterServiceVersion",
		"metadata": map[string]any{
			"name":      packageName + ".v" + version,
			"namespace": "placeholder",
			"annotations": map[string]any{
				"alm-examples":   string(examples),
				"capabilities":   "Basic Install",
				"categories":     "Networking",
				"containerImage": image,
				"description":    "Ambient service mesh on stock Envoy, programmed by Gateway API",
				"repository":     repository,
				"operatorframework.io/suggested-namespace":          namespace.Name(),
				"operatorframework.io/suggested-namespace-template": string(template),
			},
		},
		"spec": map[string]any{
			"displayName": "Fairway",
			"description": description,
			"keywords":    []string{"service mesh", "ambient", "envoy", "gateway api", "mtls"},
			"maintainers": []any{map[string]any{"name": "The Fairway Authors", "email": "maintainers@fairway.dev"}},
			"provider":    map[string]any{"name": "The Fairway Authors", "url": repository},
			"links":       []any{map[string]any{"name": "Source", "url": repository}},
			"maturity":    "alpha",
			"version":     version,
			// What docs/install.md says; the first with ServiceCIDR objects.
			"minKubeVersion": "1.33.0",
			"installModes": []any{
				installMode("OwnNamespace", false), installMode("SingleNamespace", false),
				installMode("MultiNamespace", false), installMode("AllNamespaces", true),
			},
			"install":                   install,
			"customresourcedefinitions": map[string]any{"owned": owned(src)},
			"relatedImages":             relatedImages(src),
		},
	}, nil
}

const description = `Fairway is an ambient service mesh for Kubernetes that runs on stock Envoy at both layers and
speaks standard Gateway API to its users. Label a namespace "fairway.dev/mesh: enabled" and its running pods speak
mutual TLS with SPIFFE identities, without sidecars and without a restart. Apply an HTTPRoute or GRPCRoute to a
Service and a waypoint, an L7 proxy for its namespace, appears.

After the installation, create a Mesh named "default". The custom resource definitions of the Gateway API (v1) are a
prerequisite for routes and waypoints.
`

func installMode(kind string, supported bool) any {
	return map[string]any{"type": kind, "supported": supported}
}

// installSpec is what the lifecycle manager creates: service accounts with their permissions, and the operator.
func installSpec(src *source.Source) (any, error) {
	var cluster, namespaced []any
	for _, sa := range src.Of("ServiceAccount") {
		for _, p := range []struct {
			binding string
			to      *[]any
		}{{"ClusterRoleBinding", &cluster}, {"RoleBinding", &namespaced}} {
			rules, err := src.Rules(p.binding, sa.Name())
			if err != nil {
				return nil, err
			}
			if len(rules) > 0 {
				*p.to = append(*p.to, map[string]any{"serviceAccountName": sa.Name(), "rules": rules})
			}
		}
	}
	var deployments []any
	for _, d := range src.Of("Deployment") {
		deployments = append(deployments, map[string]any{
			"name": d.Name(), "label": d.At("metadata", "labels"), "spec": d.At("spec"),
		})
	}
	return map[string]any{
		"strategy": "deployment",
		"spec":     map[string]any{"clusterPermissions": cluster, "permissions": namespaced, "deployments": deployments},
	}, nil
}

// owned lists the CRDs of the bundle.
func owned(src *source.Source) []any {
	var out []any
	for _, crd := range src.Of("CustomResourceDefinition") {
		versions, _ := crd.At("spec", "versions").([]any)
		for _, v := range versions {
			version, ok := v.(map[string]any)
			if !ok {
				continue
			}
			o := source.Object(version)
			out = append(out, map[string]any{
				"name": crd.Name(), "version": o.Str("name"), "kind": crd.Str("spec", "names", "kind"),
				"displayName": crd.Str("spec", "names", "kind"),
				"description": strings.ReplaceAll(o.Str("schema", "openAPIV3Schema", "description"), "\n", " "),
			})
		}
	}
	return out
}

// relatedImages are all images that the operator may run, for mirrors of clusters without a connection.
func relatedImages(src *source.Source) []any {
	var out []any
	for _, d := range src.Of("Deployment") {
		for _, c := range source.Containers(d) {
			env, _ := c.At("env").([]any)
			for _, e := range env {
				m, ok := e.(map[string]any)
				if !ok {
					continue
				}
				name, ok := strings.CutPrefix(source.Object(m).Str("name"), "RELATED_IMAGE_")
				if ok {
					out = append(out, map[string]any{"name": strings.ToLower(name), "image": source.Object(m).Str("value")})
				}
			}
		}
	}
	return out
}
