// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chart makes Fairway's Helm chart from config/: each object of config/default is a template, with what values
// may change put in its place. What only a chart has (values, notes, checks, PodMonitors) is in files/.
//
// The chart isn't committed. It would be a third copy of the CRDs, and all that is looked at when it changes is here or
// in config/ anyway: its tests render it and compare it with what kustomize makes.
package chart

import (
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const repository = "https://github.com/fairway-mesh/fairway"

//go:embed all:files
var files embed.FS

// Image is where the operator's image is, and that of Envoy; what is empty is as config/default has it.
type Image struct {
	Repository, Digest           string
	EnvoyRepository, EnvoyDigest string
}

// Generate makes the files of the chart, by name, from the repository in root.
func Generate(root string, image Image) (map[string][]byte, error) {
	src, err := source.Load(root)
	if err != nil {
		return nil, err
	}
	before, err := source.Render(filepath.Join(root, "config", "agents-before-1.36"))
	if err != nil {
		return nil, err
	}
	added, err := components(root, src)
	if err != nil {
		return nil, err
	}
	operator, err := src.Find("Deployment", "fairway-operator")
	if err != nil {
		return nil, err
	}
	values, err := defaults(src, operator, image)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	if err := static(out, values); err != nil {
		return nil, err
	}
	for _, o := range src.Objects {
		if o.Kind() == "Namespace" {
			continue // the user's: Helm has no say over its labels
		}
		if err := add(out, o, "", condition(o), added); err != nil {
			return nil, err
		}
	}
	for _, o := range before {
		const needed = `semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version`
		if err := add(out, o, "agents-before-1.36", needed, added); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// condition under which an object is in the release; empty is always.
func condition(o source.Object) string {
	switch o.Kind() {
	case "CustomResourceDefinition":
		return ".Values.crds.enabled"
	case "NetworkPolicy":
		return ".Values.networkPolicy.enabled"
	case "ResourceQuota":
		return ".Values.resourceQuota.enabled"
	}
	return ""
}

// add writes an object as a template.
func add(out map[string][]byte, o source.Object, folder, when string, added additions) error {
	name := o.Name() + "_" + strings.ToLower(o.Kind()) + ".yaml"
	t := &templated{object: o.DeepCopy()}
	switch o.Kind() {
	case "CustomResourceDefinition":
		name = path.Join("crds", o.Str("spec", "group")+"_"+o.Str("spec", "names", "plural")+".yaml")
		t.set("keep", "metadata", "annotations", "helm.sh/resource-policy")
	case "Deployment":
		if err := deployment(t, added); err != nil {
			return fmt.Errorf("operator's Deployment: %w", err)
		}
	case "ServiceAccount":
		t.block(`{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}`)
	}
	text, err := t.text()
	if err != nil {
		return fmt.Errorf("%s %s: %w", o.Kind(), o.Name(), err)
	}
	if when != "" {
		text = "{{- if " + when + " }}\n" + text + "{{- end }}\n"
	}
	out[path.Join("templates", folder, name)] = []byte(text)
	return nil
}

// static writes what is in files/, with the marks "@@NAME@@" replaced.
func static(out map[string][]byte, values map[string]string) error {
	pairs := make([]string, 0, 2*len(values))
	for name, value := range values {
		pairs = append(pairs, "@@"+name+"@@", value)
	}
	replacer := strings.NewReplacer(pairs...)
	return fs.WalkDir(files, "files", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		text := replacer.Replace(string(b))
		if _, after, found := strings.Cut(text, "@@"); found {
			return fmt.Errorf("%s: nothing replaces @@%.20s", name, after)
		}
		out[strings.TrimPrefix(name, "files/")] = []byte(text)
		return nil
	})
}

// defaults are what replaces the marks in files/: mostly defaults of values, which config/default has.
func defaults(src *source.Source, operator source.Object, image Image) (map[string]string, error) {
	version, err := src.Version()
	if err != nil {
		return nil, err
	}
	named, err := src.Image()
	if err != nil {
		return nil, err
	}
	container := source.Containers(operator)[0]
	envoyRepository, envoyTag, ok := cutTag(envVar(container, "RELATED_IMAGE_ENVOY"))
	if !ok {
		return nil, errors.New("RELATED_IMAGE_ENVOY has no tag")
	}
	repo, _, _ := cutTag(named)
	namespace, err := src.Find("Namespace", "fairway-system")
	if err != nil {
		return nil, err
	}
	pod := source.Object{"spec": operator.At("spec", "template", "spec")}
	out := map[string]string{
		"chartVersion": version, "version": "v" + version, "repository": repository, "namespace": namespace.Name(),
		"image.repository": cmp.Or(image.Repository, repo), "image.digest": fmt.Sprintf("%q", image.Digest),
		"envoyImage.repository": cmp.Or(image.EnvoyRepository, envoyRepository), "envoyImage.tag": envoyTag,
		"envoyImage.digest": fmt.Sprintf("%q", image.EnvoyDigest),
	}
	for mark, v := range map[string]any{
		"pullPolicy": container.At("imagePullPolicy"), "replicas": operator.At("spec", "replicas"),
		"resources": container.At("resources"), "nodeSelector": pod.At("spec", "nodeSelector"),
		"tolerations": pod.At("spec", "tolerations"), "priorityClassName": pod.At("spec", "priorityClassName"),
	} {
		if out[mark], err = inline(v); err != nil {
			return nil, err
		}
	}
	labels, _ := namespace.At("metadata", "labels").(map[string]any)
	security := map[string]any{}
	var args []string
	for key, value := range labels {
		if strings.HasPrefix(key, "pod-security.kubernetes.io/") {
			security[key] = value
			args = append(args, fmt.Sprintf("%s=%v", key, value))
		}
	}
	slices.Sort(args)
	out["namespaceLabelArgs"] = strings.Join(args, " ")
	asJSON, err := json.Marshal(security)
	out["namespaceLabels"] = string(asJSON)
	return out, err
}

// inline is a value for the right side of "key:" at the top of a document.
func inline(v any) (string, error) {
	b, err := yaml.Marshal(v)
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(string(b), "\n")
	switch v.(type) {
	case map[string]any, []any:
		return "\n  " + strings.ReplaceAll(text, "\n", "\n  "), nil
	}
	return text, nil
}

// cutTag parts an image's name from its tag.
func cutTag(image string) (name, tag string, ok bool) {
	n := strings.LastIndex(image, ":")
	if n < 0 || strings.Contains(image[n:], "/") {
		return image, "", false
	}
	return image[:n], image[n+1:], true
}

func envVar(container source.Object, name string) string {
	env, _ := container.At("env").([]any)
	for _, e := range env {
		if m, ok := e.(map[string]any); ok && m["name"] == name {
			return source.Object(m).Str("value")
		}
	}
	return ""
}
