// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestFieldsOfDocumentsExist looks up the fields of a spec that documents name in the CRDs.
func TestFieldsOfDocumentsExist(t *testing.T) {
	specs := schemas(t)
	// Fields of kinds that are not ours.
	others := []string{"spec.hostnames", "spec.podCIDRs", "spec.config.nodeSelector", "spec.config.tolerations",
		"spec.wait", "spec.healthCheckExprs"}
	path := regexp.MustCompile(`^(?:(Mesh|ProxyParameters)\.)?(spec\.[A-Za-z.]+)$`)
	found := 0
	for _, p := range pages(t) {
		for _, span := range p.spans {
			m := path.FindStringSubmatch(span)
			if m == nil || slices.Contains(others, span) {
				continue
			}
			found++
			exists := false
			for kind, schema := range specs {
				exists = exists || (m[1] == "" || m[1] == kind) && hasField(schema, strings.Split(m[2], "."))
			}
			assert.True(t, exists, "%s: no kind has the field %s", p.file, span)
		}
	}
	require.Greater(t, found, 10)
	require.False(t, hasField(specs["Mesh"], []string{"spec", "node", "hosts"}))
}

// schemas of Fairway's kinds.
func schemas(t *testing.T) map[string]apiextensionsv1.JSONSchemaProps {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(apiserver.Root(), "config", "crd", "bases", "*.yaml"))
	require.NoError(t, err)
	out := map[string]apiextensionsv1.JSONSchemaProps{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		var crd apiextensionsv1.CustomResourceDefinition
		require.NoError(t, yaml.Unmarshal(raw, &crd))
		out[crd.Spec.Names.Kind] = *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return out
}

func hasField(schema apiextensionsv1.JSONSchemaProps, path []string) bool {
	for _, name := range path {
		next, ok := schema.Properties[name]
		if !ok {
			return false
		}
		schema = next
	}
	return true
}
