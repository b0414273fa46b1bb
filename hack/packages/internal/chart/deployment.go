// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// deployment puts in what values change of the operator's Deployment.
func deployment(t *templated, added additions) error {
	pod := func(path ...string) []string { return append([]string{"spec", "template", "spec"}, path...) }
	container := func(path ...string) []string { return append(pod("containers", "0"), path...) }

	t.replace("{{ .Values.replicas }}", "spec", "replicas")
	t.replace(`{{ include "fairway.image" . | quote }}`, container("image")...)
	t.replace("{{ .Values.image.pullPolicy }}", container("imagePullPolicy")...)
	t.replace("{{- toYaml .Values.resources | nindent 12 }}", container("resources")...)
	t.replace("{{- toYaml .Values.tolerations | nindent 8 }}", pod("tolerations")...)
	t.replace("{{ .Values.priorityClassName | quote }}", pod("priorityClassName")...)
	t.block("{{- with .Values.affinity }}\naffinity: {{- toYaml . | nindent 8 }}\n{{- end }}", pod()...)

	selector, err := literal(added.controlPlane)
	if err != nil {
		return err
	}
	t.replace("{{- (ternary (merge "+selector+" .Values.nodeSelector) .Values.nodeSelector "+
		".Values.controlPlane.enabled) | toYaml | nindent 8 }}", pod("nodeSelector")...)
	// Those that something relies on can't be changed; an annotation may be.
	labels, err := literal(t.object.At("spec", "template", "metadata", "labels"))
	if err != nil {
		return err
	}
	t.replace("{{- merge "+labels+" .Values.podLabels | toYaml | nindent 8 }}", "spec", "template", "metadata", "labels")
	annotations, err := literal(t.object.At("spec", "template", "metadata", "annotations"))
	if err != nil {
		return err
	}
	t.replace("{{- mergeOverwrite "+annotations+" .Values.podAnnotations | toYaml | nindent 8 }}",
		"spec", "template", "metadata", "annotations")
	if err := arguments(t); err != nil {
		return err
	}
	for _, l := range []struct {
		list []any
		name string
		at   []string
	}{{added.volumes, "volumes", pod()}, {added.mounts, "volumeMounts", container()}} {
		text, err := yaml.Marshal(map[string]any{l.name: l.list})
		if err != nil {
			return err
		}
		t.block("{{- if .Values.spire.enabled }}\n"+string(text)+"{{- end }}", l.at...)
	}
	return images(t)
}

// arguments adds the level of logs where it is not the operator's default.
func arguments(t *templated) error {
	args, ok := t.object.At("spec", "template", "spec", "containers").([]any)[0].(map[string]any)["args"].([]any)
	if !ok {
		return errors.New("the operator has no arguments")
	}
	list, err := literal(args)
	if err != nil {
		return err
	}
	t.replace(`{{- (eq .Values.logLevel "info" | ternary `+list+` (append `+list+` (printf "--log-level=%s" .Values.logLevel))) `+
		"| toYaml | nindent 12 }}", "spec", "template", "spec", "containers", "0", "args")
	return nil
}

// images of the pods that the operator makes.
func images(t *templated) error {
	wanted := map[string]string{
		"RELATED_IMAGE_FAIRWAY": `{{ include "fairway.image" . | quote }}`,
		"RELATED_IMAGE_ENVOY":   `{{ include "fairway.envoyImage" . | quote }}`,
	}
	for _, e := range source.Containers(t.object)[0].At("env").([]any) {
		env, ok := e.(map[string]any)
		if !ok {
			continue
		}
		name, _ := env["name"].(string)
		if piece, ok := wanted[name]; ok {
			env["value"] = t.mark(piece)
			delete(wanted, name)
		} else if strings.HasPrefix(name, "RELATED_IMAGE_") {
			return fmt.Errorf("no value of the chart sets %s", name)
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("the operator lacks %v", slices.Sorted(maps.Keys(wanted)))
	}
	return nil
}

// literal is a value as an expression of templates.
func literal(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v), nil
	case map[string]any:
		out := "(dict"
		for _, key := range slices.Sorted(maps.Keys(v)) {
			value, err := literal(v[key])
			if err != nil {
				return "", err
			}
			out += fmt.Sprintf(" %q %s", key, value)
		}
		return out + ")", nil
	case []any:
		out := "(list"
		for _, item := range v {
			value, err := literal(item)
			if err != nil {
				return "", err
			}
			out += " " + value
		}
		return out + ")", nil
	}
	return "", fmt.Errorf("a %T has no literal in templates", v)
}

// additions are what the components of config/components add to the operator's Deployment.
type additions struct {
	controlPlane    map[string]any // to nodeSelector
	volumes, mounts []any          // of SPIRE
}

func components(root string, src *source.Source) (additions, error) {
	out := additions{controlPlane: map[string]any{}}
	base, err := src.Find("Deployment", "fairway-operator")
	if err != nil {
		return out, err
	}
	operator := func(component string) (source.Object, source.Object, error) {
		objects, err := withComponent(root, component)
		if err != nil {
			return nil, nil, err
		}
		o, err := (&source.Source{Objects: objects}).Find("Deployment", "fairway-operator")
		if err != nil {
			return nil, nil, err
		}
		return o, source.Containers(o)[0], nil
	}
	o, _, err := operator("control-plane")
	if err != nil {
		return out, err
	}
	selector, _ := o.At("spec", "template", "spec", "nodeSelector").(map[string]any)
	before, _ := base.At("spec", "template", "spec", "nodeSelector").(map[string]any)
	for key, value := range selector {
		if before[key] != value {
			out.controlPlane[key] = value
		}
	}
	o, container, err := operator("spire")
	if err != nil {
		return out, err
	}
	out.volumes, _ = o.At("spec", "template", "spec", "volumes").([]any)
	out.mounts, _ = container.At("volumeMounts").([]any)
	if len(out.controlPlane) == 0 || len(out.volumes) == 0 || len(out.mounts) == 0 {
		return out, errors.New("config/components no longer add what the chart takes from them")
	}
	if base.At("spec", "template", "spec", "volumes") != nil || source.Containers(base)[0].At("volumeMounts") != nil {
		return out, errors.New("the operator has volumes of its own: the chart must join those of SPIRE with them")
	}
	return out, nil
}

// withComponent is config/default with a component.
func withComponent(root, component string) (objects []source.Object, err error) {
	dir, err := os.MkdirTemp("", "component-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	to, err := filepath.Rel(dir, filepath.Join(root, "config"))
	if err != nil {
		return nil, err
	}
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": []string{to + "/default"}, "components": []string{to + "/components/" + component},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), b, 0o600); err != nil {
		return nil, err
	}
	return source.Render(dir)
}
