// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import "testing"

// TestModesValidation: a policy on modes is for pods, and one on tokens for Services.
func TestModesValidation(t *testing.T) {
	c := connect(t)
	const (
		namespace = "targetRefs: [{kind: Namespace}], "
		pods      = "targetRefs: [{kind: Pod, selector: {matchLabels: {app: web}}}], "
		strict    = "mtls: {mode: Strict}"
	)
	for name, tc := range map[string]struct{ spec, refused string }{
		"a namespace":       {namespace + strict, ""},
		"pods by labels":    {pods + "mtls: {mode: Permissive}", ""},
		"a port":            {pods + "mtls: {ports: [{port: 9090, mode: Permissive}]}", ""},
		"a mode and a port": {pods + "mtls: {mode: Strict, ports: [{port: 9090, mode: Permissive}]}", ""},
		"pods and the namespace": {
			"targetRefs: [{kind: Pod, selector: {}}, {kind: Namespace}], " + strict, "",
		},
		"nothing":             {namespace + "mtls: {}", "set mode, ports or both"},
		"neither":             {"targetRefs: [{kind: Namespace}]", "or else mtls alone"},
		"a Service":           {"targetRefs: [{kind: Service, name: web}], " + strict, "mtls targets Pod (by selector)"},
		"a Gateway":           {"targetRefs: [{kind: Gateway, name: web}], " + strict, "group must be empty"},
		"a pod by name":       {"targetRefs: [{kind: Pod, name: web}], " + strict, "kind Pod needs a selector"},
		"a namespace by name": {"targetRefs: [{kind: Namespace, name: web}], " + strict, "have no name"},
		"a section of pods":   {"targetRefs: [{kind: Namespace, sectionName: a}], " + strict, "only a Service has sections"},
		"an unknown mode":     {namespace + "mtls: {mode: Off}", "Unsupported value"},
		"no port":             {namespace + "mtls: {ports: [{port: 0, mode: Strict}]}", "greater than or equal to 1"},
		"a port without mode": {namespace + "mtls: {ports: [{port: 80}]}", "Required value"},
		"a port that is twice": {
			namespace + "mtls: {ports: [{port: 80, mode: Strict}, {port: 80, mode: Permissive}]}", "Duplicate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := "apiVersion: fairway.dev/v1alpha1\nkind: AuthenticationPolicy\n" +
				"metadata: {name: p, namespace: default}\nspec: {" + tc.spec + "}"
			tries(t, c, manifest, tc.refused)
		})
	}
}
