// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

var (
	//go:embed files/icon.svg
	icon []byte
	//go:embed files/description.md
	description string
)

const summary = "Ambient service mesh on stock Envoy, programmed by the Gateway API"

func clusterServiceVersion(src *source.Source) (source.Object, error) {
	version, err := parsedVersion(src)
	if err != nil {
		return nil, err
	}
	install, err := installSpec(src)
	if err != nil {
		return nil, err
	}
	kinds, err := owned(src)
	if err != nil {
		return nil, err
	}
	notes, err := csvAnnotations(src)
	if err != nil {
		return nil, err
	}
	notes["olm.skipRange"] = skipRange(version)
	return source.Object{
		"apiVersion": "operators.coreos.com/v1alpha1",
		"kind":       "ClusterServiceVersion",
		"metadata": map[string]any{
			"name": csvName(version), "namespace": "placeholder", "annotations": notes, "labels": platforms(),
		},
		"spec": map[string]any{
			"displayName": "Fairway",
			"description": description,
			"icon": []any{map[string]any{
				"base64data": base64.StdEncoding.EncodeToString(icon), "mediatype": "image/svg+xml",
			}},
			"keywords":    []string{"service mesh", "ambient", "envoy", "gateway api", "mtls", "spiffe"},
			"maintainers": []any{map[string]any{"name": "The Fairway Authors", "email": "maintainers@fairway.dev"}},
			"provider":    map[string]any{"name": "The Fairway Authors", "url": repository},
			"links": []any{
				map[string]any{"name": "Documentation", "url": repository + "/tree/main/docs"},
				map[string]any{"name": "Installing with OLM", "url": repository + "/blob/main/docs/olm.md"},
				map[string]any{"name": "Source", "url": repository},
			},
			"maturity": "alpha",
			"version":  version.String(),
			// What docs/install.md says; the first with ServiceCIDR objects.
			"minKubeVersion": "1.33.0",
			"installModes": []any{
				installMode("OwnNamespace", false), installMode("SingleNamespace", false),
				installMode("MultiNamespace", false), installMode("AllNamespaces", true),
			},
			"install":                   install,
			"customresourcedefinitions": map[string]any{"owned": kinds},
			"relatedImages":             relatedImages(src),
		},
	}, nil
}

// platforms that all images of the operator are for.
func platforms() map[string]any {
	return map[string]any{
		"operatorframework.io/os.linux":   "supported",
		"operatorframework.io/arch.amd64": "supported", "operatorframework.io/arch.arm64": "supported",
	}
}

func csvAnnotations(src *source.Source) (map[string]any, error) {
	image, err := src.Image()
	if err != nil {
		return nil, err
	}
	namespace, err := src.Find("Namespace", "fairway-system")
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		// The operator replaces proxies when it is upgraded, without cutting what is open (docs/install.md). The next level
		// would take backups and failure recovery of operands; they have no data.
		"capabilities":   "Seamless Upgrades",
		"categories":     "Networking,Security",
		"containerImage": image,
		"description":    summary,
		"repository":     repository,
		"support":        repository + "/issues",
		"operatorframework.io/suggested-namespace": namespace.Name(),
	}
	for feature, has := range features(src) {
		out["features.operators.openshift.io/"+feature] = fmt.Sprint(has)
	}
	examples := ownSamples(src)
	mesh := slices.IndexFunc(examples, func(o source.Object) bool { return o.Kind() == "Mesh" })
	if mesh < 0 {
		return nil, fmt.Errorf("config/samples has no Mesh")
	}
	for name, content := range map[string]any{
		"alm-examples": examples,
		// What a console asks to create once the operator is installed.
		"operatorframework.io/initialization-resource": examples[mesh],
		"operatorframework.io/suggested-namespace-template": map[string]any{
			"apiVersion": "v1", "kind": "Namespace",
			"metadata": map[string]any{"name": namespace.Name(), "labels": namespace.At("metadata", "labels")},
		},
	} {
		b, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return nil, err
		}
		out[name] = string(b)
	}
	return out, nil
}

// features are what OpenShift's catalogues ask of operators, and whether this one has it.
func features(src *source.Source) map[string]bool {
	return map[string]bool{
		// A mirror can have all images only if they are named by digest, as in releases for a registry.
		"disconnected": !slices.ContainsFunc(relatedImages(src), func(i any) bool {
			m, _ := i.(map[string]any)
			return !strings.Contains(fmt.Sprint(m["image"]), "@sha256:")
		}),
		"fips-compliant": false, "proxy-aware": false, "tls-profiles": false, "cnf": false, "cni": false, "csi": false,
		"token-auth-aws": false, "token-auth-azure": false, "token-auth-gcp": false,
	}
}

// ownSamples are the samples of the bundle's kinds.
func ownSamples(src *source.Source) []source.Object {
	kinds := map[string]bool{}
	for _, crd := range src.Of("CustomResourceDefinition") {
		kinds[crd.Str("spec", "group")+"/"+crd.Str("spec", "names", "kind")] = true
	}
	var out []source.Object
	for _, o := range src.Samples {
		group, _, _ := strings.Cut(o.Str("apiVersion"), "/")
		if kinds[group+"/"+o.Kind()] {
			out = append(out, o)
		}
	}
	return out
}

func installMode(kind string, supported bool) any {
	return map[string]any{"type": kind, "supported": supported}
}

// installSpec is what the lifecycle manager creates: service accounts with what they may do in all namespaces, and the
// operator. See manifestName for what they may do in their own.
func installSpec(src *source.Source) (any, error) {
	var cluster []any
	for _, sa := range src.Of("ServiceAccount") {
		rules, err := src.Rules("ClusterRoleBinding", sa.Name())
		if err != nil {
			return nil, err
		}
		if len(rules) == 0 {
			return nil, fmt.Errorf("service account %s has no ClusterRole: the lifecycle manager would not make it", sa.Name())
		}
		cluster = append(cluster, map[string]any{"serviceAccountName": sa.Name(), "rules": rules})
	}
	var deployments []any
	for _, d := range src.Of("Deployment") {
		deployments = append(deployments, map[string]any{
			"name": d.Name(), "label": d.At("metadata", "labels"), "spec": d.At("spec"),
		})
	}
	return map[string]any{
		"strategy": "deployment",
		"spec":     map[string]any{"clusterPermissions": cluster, "deployments": deployments},
	}, nil
}

// owned lists the CRDs of the bundle.
func owned(src *source.Source) ([]any, error) {
	var out []any
	for _, crd := range src.Of("CustomResourceDefinition") {
		kind := crd.Str("spec", "names", "kind")
		versions, _ := crd.At("spec", "versions").([]any)
		for _, v := range versions {
			version, ok := v.(map[string]any)
			if !ok {
				continue
			}
			o := source.Object(version)
			schema, _ := o.At("schema", "openAPIV3Schema").(map[string]any)
			entry := map[string]any{
				"name": crd.Name(), "version": o.Str("name"), "kind": kind, "displayName": kind,
				"description": strings.ReplaceAll(source.Object(schema).Str("description"), "\n", " "),
			}
			for field, part := range map[string]struct {
				of     string
				fields []field
			}{
				"specDescriptors":   {"spec", withSamples(specFields[kind], kind, src.Samples)},
				"statusDescriptors": {"status", statusFields[kind]},
			} {
				d, err := descriptors(schema, part.of, part.fields)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", kind, err)
				}
				if len(d) > 0 {
					entry[field] = d
				}
			}
			if made[kind] != nil {
				entry["resources"] = made[kind]
			}
			out = append(out, entry)
		}
	}
	return out, nil
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
