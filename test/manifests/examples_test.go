// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/test/apiserver"
)

// Notes behind the language of a block of YAML. Without one the block is a whole manifest.
const (
	// noteMesh: the block is a part of the Mesh, which the test completes.
	noteMesh = "of the Mesh"
	// noteKustomization: TestOperatorPlacement renders the block.
	noteKustomization = "of a kustomization"
	// notePrometheus: the block is a part of Prometheus' configuration.
	notePrometheus = "of Prometheus"
	// noteArgo, noteFlux and noteFlagger: the block is an object of kinds that only a cluster with those has, or a part of
	// one.
	noteArgo = "of Argo CD"
	noteFlux = "of Flux"
	// test/canaries applies the block, with Flagger's CRDs.
	noteFlagger = "of Flagger"
	// noteOLM and noteCertManager: the same.
	noteOLM         = "of OLM"
	noteCertManager = "of cert-manager"
)

// TestExamplesOfDocuments asks an API server whether it would take the manifests that documents show.
func TestExamplesOfDocuments(t *testing.T) {
	c := newClient(t)
	examples := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if !p.users() || b.language != "yaml" {
				continue
			}
			text := b.text
			switch b.note {
			case noteKustomization, notePrometheus, noteArgo, noteFlux, noteFlagger, noteOLM, noteCertManager:
				t.Logf("%s: not asked about, since it is a part %s:\n%s", p.file, b.note, text)
				continue
			case noteMesh:
				text = "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n" + text
			default:
				require.Empty(t, b.note, "%s: a note that the test doesn't know:\n%s", p.file, text)
			}
			objects := apiserver.Objects(t, text)
			require.NotEmpty(t, objects, "%s: no object in\n%s", p.file, text)
			for _, o := range objects {
				examples++
				require.NotEmpty(t, o.GetKind(), "%s: no manifest; say by a note behind the language what it is:\n%s", p.file, text)
				require.NoError(t, dryRun(t, c, o), "%s: %s %s", p.file, o.GetKind(), o.GetName())
			}
		}
	}
	require.Greater(t, examples, 5)
}

// TestWrongExamplesAreRefused shows that the test above would notice.
func TestWrongExamplesAreRefused(t *testing.T) {
	c := newClient(t)
	const mesh = "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n"
	for name, manifest := range map[string]string{
		"field that does not exist": mesh + "spec: {tls: {mode: Strict}}",
		"value that is none":        mesh + "spec: {mtls: {mode: Lax}}",
		"kind that does not exist":  strings.Replace(mesh, "Mesh", "Net", 1),
		"field of a built-in kind": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" +
			"metadata: {name: x, namespace: bookshop}\nspec: {podSelector: {}, policy: []}",
	} {
		t.Run(name, func(t *testing.T) { require.Error(t, dryRun(t, c, apiserver.Objects(t, manifest)[0])) })
	}
}

// dryRun applies an object as `kubectl apply --server-side --dry-run=server` does.
func dryRun(t *testing.T, c client.Client, o *unstructured.Unstructured) error {
	t.Helper()
	if name := o.GetNamespace(); name != "" {
		err := c.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		require.NoError(t, client.IgnoreAlreadyExists(err))
	}
	return c.Apply(context.Background(), client.ApplyConfigurationFromUnstructured(o),
		client.FieldOwner("documents"), client.ForceOwnership, client.DryRunAll)
}
