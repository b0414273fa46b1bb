// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Objects parses YAML documents as kubectl would read them.
func Objects(tb testing.TB, manifests string) []*unstructured.Unstructured {
	tb.Helper()
	var out []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(manifests)), 4096)
	for {
		u := &unstructured.Unstructured{}
		switch err := d.Decode(&u.Object); {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			tb.Fatal(err)
		case len(u.Object) > 0:
			out = append(out, u)
		}
	}
}
