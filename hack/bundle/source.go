// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// object is a Kubernetes object as JSON has it.
type object map[string]any

func (o object) str(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (o object) kind() string { return o.str("kind") }
func (o object) name() string { return o.str("metadata", "name") }

// source is what the bundle is made from.
type source struct {
	// objects of config/default, as kustomize renders them.
	objects []object
	// samples of config/samples, by file.
	samples []object
}

func load(root string) (*source, error) {
	k := krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: types.LoadRestrictionsRootOnly, PluginConfig: types.DisabledPluginConfig(),
	})
	m, err := k.Run(filesys.MakeFsOnDisk(), filepath.Join(root, "config", "default"))
	if err != nil {
		return nil, fmt.Errorf("render config/default: %w", err)
	}
	rendered, err := m.AsYaml()
	if err != nil {
		return nil, err
	}
	src := &source{}
	if src.objects, err = parse(rendered); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, "config", "samples", "fairway_*.yaml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		objs, err := parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		src.samples = append(src.samples, objs...)
	}
	return src, nil
}

func parse(b []byte) ([]object, error) {
	d := yamlv3.NewDecoder(bytes.NewReader(b))
	var out []object
	for {
		var node map[string]any
		err := d.Decode(&node)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(node) == 0 {
			continue
		}
		// Through YAML once more, for numbers and maps as JSON has them.
		raw, err := yamlv3.Marshal(node)
		if err != nil {
			return nil, err
		}
		o := object{}
		if err := yaml.Unmarshal(raw, &o); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
}

// of are the objects of a kind.
func (s *source) of(kind string) []object {
	var out []object
	for _, o := range s.objects {
		if o.kind() == kind {
			out = append(out, o)
		}
	}
	return out
}

// rules are the permissions that Roles or ClusterRoles bound to a service account grant it.
func (s *source) rules(bindingKind, serviceAccount string) ([]any, error) {
	var out []any
	for _, b := range s.of(bindingKind) {
		subjects, _ := b.at("subjects").([]any)
		for _, sub := range subjects {
			m, ok := sub.(map[string]any)
			if !ok || m["kind"] != "ServiceAccount" || m["name"] != serviceAccount {
				continue
			}
			role, err := s.find(b.str("roleRef", "kind"), b.str("roleRef", "name"))
			if err != nil {
				return nil, err
			}
			rules, _ := role.at("rules").([]any)
			out = append(out, rules...)
		}
	}
	return out, nil
}

func (s *source) find(kind, name string) (object, error) {
	for _, o := range s.of(kind) {
		if o.name() == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("config/default has no %s %s", kind, name)
}

// version is the version of the operator's image, without "v".
func (s *source) version() (string, error) {
	image, err := s.image()
	if err != nil {
		return "", err
	}
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	if !ok || !strings.HasPrefix(tag, "v") {
		return "", fmt.Errorf("image %s has no tag vX.Y.Z", image)
	}
	return strings.TrimPrefix(tag, "v"), nil
}

func (s *source) image() (string, error) {
	d, err := s.find("Deployment", "fairway-operator")
	if err != nil {
		return "", err
	}
	c := containers(d)
	if len(c) == 0 {
		return "", errors.New("the operator's Deployment has no containers")
	}
	return c[0].str("image"), nil
}

func containers(deployment object) []object {
	list, _ := deployment.at("spec", "template", "spec", "containers").([]any)
	var out []object
	for _, c := range list {
		if m, ok := c.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
