// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package source reads config/ as kustomize renders it: what the packages for OLM, Helm and releases are made from.
package source

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

// Object is a Kubernetes object as JSON has it.
type Object map[string]any

// Str is the text at path; empty where there is none.
func (o Object) Str(path ...string) string {
	s, _ := o.At(path...).(string)
	return s
}

// At is what is at path; nil where there is nothing.
func (o Object) At(path ...string) any {
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

// DeepCopy shares nothing with the object.
func (o Object) DeepCopy() Object {
	out, _ := deepCopy(map[string]any(o)).(map[string]any)
	return out
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = deepCopy(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for n, value := range v {
			out[n] = deepCopy(value)
		}
		return out
	}
	return v
}

// Kind of the object.
func (o Object) Kind() string { return o.Str("kind") }

// Name of the object.
func (o Object) Name() string { return o.Str("metadata", "name") }

// Source is what packages are made from.
type Source struct {
	// Objects of config/default, as kustomize renders them.
	Objects []Object
	// Samples of config/samples, by file.
	Samples []Object

	version string
}

// Load reads config/ of the repository in root.
func Load(root string) (*Source, error) {
	src := &Source{}
	var err error
	if src.Objects, err = Render(filepath.Join(root, "config", "default")); err != nil {
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
		objs, err := Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		src.Samples = append(src.Samples, objs...)
	}
	return src, nil
}

// Render is what kustomize makes of a folder.
func Render(dir string) ([]Object, error) {
	rendered, err := Manifests(dir)
	if err != nil {
		return nil, err
	}
	return Parse(rendered)
}

// Manifests are what kustomize makes of a folder, as YAML.
func Manifests(dir string) ([]byte, error) {
	k := krusty.MakeKustomizer(&krusty.Options{
		// As kubectl does: namespaces before what is in them.
		Reorder:          krusty.ReorderOptionLegacy,
		LoadRestrictions: types.LoadRestrictionsRootOnly, PluginConfig: types.DisabledPluginConfig(),
	})
	m, err := k.Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	return m.AsYaml()
}

// Print writes objects as one stream of YAML, as kubectl apply takes it.
func Print(objects []Object) ([]byte, error) {
	var out bytes.Buffer
	for n, o := range objects {
		if n > 0 {
			out.WriteString("---\n")
		}
		b, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

// Parse reads the documents of YAML that aren't empty.
func Parse(b []byte) ([]Object, error) {
	d := yamlv3.NewDecoder(bytes.NewReader(b))
	var out []Object
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
		o := Object{}
		if err := yaml.Unmarshal(raw, &o); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
}

// Of are the objects of a kind.
func (s *Source) Of(kind string) []Object {
	var out []Object
	for _, o := range s.Objects {
		if o.Kind() == kind {
			out = append(out, o)
		}
	}
	return out
}

// Rules are the permissions that Roles or ClusterRoles bound to a service account grant it.
func (s *Source) Rules(bindingKind, serviceAccount string) ([]any, error) {
	var out []any
	for _, b := range s.Of(bindingKind) {
		subjects, _ := b.At("subjects").([]any)
		for _, sub := range subjects {
			m, ok := sub.(map[string]any)
			if !ok || m["kind"] != "ServiceAccount" || m["name"] != serviceAccount {
				continue
			}
			role, err := s.Find(b.Str("roleRef", "kind"), b.Str("roleRef", "name"))
			if err != nil {
				return nil, err
			}
			rules, _ := role.At("rules").([]any)
			out = append(out, rules...)
		}
	}
	return out, nil
}

// Find is the object of that kind and name; it must be there.
func (s *Source) Find(kind, name string) (Object, error) {
	for _, o := range s.Of(kind) {
		if o.Name() == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("config/default has no %s %s", kind, name)
}

// Version is the version of the operator's image, without "v".
func (s *Source) Version() (string, error) {
	if s.version != "" {
		return s.version, nil
	}
	image, err := s.Image()
	if err != nil {
		return "", err
	}
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	if !ok || !strings.HasPrefix(tag, "v") {
		return "", fmt.Errorf("image %s has no tag vX.Y.Z", image)
	}
	return strings.TrimPrefix(tag, "v"), nil
}

// SetVersion has packages be of another version than the image of config/default, which stays.
func (s *Source) SetVersion(version string) { s.version = version }

// SetImage has the operator, and the pods that it makes, run another image. The version stays.
func (s *Source) SetImage(image string) error {
	version, err := s.Version()
	if err != nil {
		return err
	}
	before, err := s.Image()
	if err != nil {
		return err
	}
	s.version = version
	d, err := s.Find("Deployment", "fairway-operator")
	if err != nil {
		return err
	}
	for _, c := range Containers(d) {
		if c.Str("image") == before {
			c["image"] = image
		}
		env, _ := c.At("env").([]any)
		for _, e := range env {
			if m, ok := e.(map[string]any); ok && m["value"] == before {
				m["value"] = image
			}
		}
	}
	return nil
}

// EnvoyVariable is the operator's, for the image of Envoy that its proxies run.
const EnvoyVariable = "RELATED_IMAGE_ENVOY"

// SetEnvoy has the pods that the operator makes run another image of Envoy.
func (s *Source) SetEnvoy(image string) error {
	d, err := s.Find("Deployment", "fairway-operator")
	if err != nil {
		return err
	}
	for _, c := range Containers(d) {
		env, _ := c.At("env").([]any)
		for _, e := range env {
			if m, ok := e.(map[string]any); ok && m["name"] == EnvoyVariable {
				m["value"] = image
				return nil
			}
		}
	}
	return fmt.Errorf("the operator has no %s", EnvoyVariable)
}

// Image of the operator.
func (s *Source) Image() (string, error) {
	d, err := s.Find("Deployment", "fairway-operator")
	if err != nil {
		return "", err
	}
	c := Containers(d)
	if len(c) == 0 {
		return "", errors.New("the operator's Deployment has no containers")
	}
	return c[0].Str("image"), nil
}

// Containers of a Deployment.
func Containers(deployment Object) []Object {
	list, _ := deployment.At("spec", "template", "spec", "containers").([]any)
	var out []Object
	for _, c := range list {
		if m, ok := c.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
