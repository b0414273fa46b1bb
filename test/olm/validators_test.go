// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package olm has the validators of the operator framework look at the bundle, as catalogues do before they take one.
// It is a module of its own, since they come with a Kubernetes of their time.
package olm

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
)

const bundle = "../../bundle"

// validate gives what all validators say of the bundle in a folder. Those of operatorhub.io and of the community's
// catalogue are told the Kubernetes to look at, and where the bundle's Dockerfile is.
func validate(t *testing.T, dir string) (errs, warnings []string) {
	t.Helper()
	b, err := manifests.GetBundleFromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	objects := append(b.ObjectsToValidate(), map[string]string{
		"k8s-version": b.CSV.Spec.MinKubeVersion, "index-path": filepath.Join(dir, "bundle.Dockerfile"),
	})
	for _, o := range b.Objects {
		objects = append(objects, o)
	}
	for _, r := range validation.AllValidators.Validate(objects...) {
		for _, e := range r.Errors {
			errs = append(errs, e.Error())
		}
		for _, w := range r.Warnings {
			warnings = append(warnings, w.Error())
		}
	}
	return errs, warnings
}

// TestValidators: the bundle has no errors, and no warnings but those that are meant.
func TestValidators(t *testing.T) {
	meant := []string{
		// It says which version was looked at, no more.
		"checking APIs against Kubernetes version : 1.33.0",
	}
	errs, warnings := validate(t, bundle)
	for _, e := range errs {
		t.Error(e)
	}
	for _, w := range warnings {
		if !slices.ContainsFunc(meant, func(m string) bool { return strings.Contains(w, m) }) {
			t.Error(w)
		}
	}
	if len(warnings) != len(meant) {
		t.Errorf("%d warnings, want %d: %v", len(warnings), len(meant), warnings)
	}
}

// TestValidatorsFind: what would keep the bundle out of a catalogue is an error here.
func TestValidatorsFind(t *testing.T) {
	const csv = "manifests/fairway.clusterserviceversion.yaml"
	for name, change := range map[string]struct{ file, from, to, want string }{
		"an unknown category": {csv, "categories: Networking,", "categories: Meshes,", "Meshes"},
		"an unknown level":    {csv, "capabilities: Seamless Upgrades", "capabilities: All", "capabilities"},
		"an icon of no kind":  {csv, "mediatype: image/svg+xml", "mediatype: text/plain", "mediatype"},
		"a CRD not owned":     {"manifests/fairway.dev_meshes.yaml", "    kind: Mesh\n", "    kind: Net\n", "Kind=Net"},
		"no API of an example": {
			csv, `"apiVersion": "fairway.dev/v1alpha1"`, `"apiVersion": "v1"`, "provided API",
		},
		"a budget that blocks drains": {
			"manifests/fairway-operator_poddisruptionbudget.yaml", "maxUnavailable: 1", "maxUnavailable: 0", "maxUnavailable",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(bundle)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, change.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(b), change.from, change.to, 1)
			if changed == string(b) {
				t.Fatalf("%s has no %q", change.file, change.from)
			}
			if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			errs, _ := validate(t, dir)
			if !slices.ContainsFunc(errs, func(e string) bool { return strings.Contains(e, change.want) }) {
				t.Errorf("errors are %v", errs)
			}
		})
	}
}
