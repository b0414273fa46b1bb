// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/wasm"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// extensible is a namespace of the mesh whose waypoints may run extensions, and nobody else's.
func extensible(t *testing.T) *space {
	t.Helper()
	s := enrolled(t)
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	before, err := json.Marshal(mesh.Spec.Extensions)
	require.NoError(t, err)
	t.Cleanup(func() {
		patchMesh(t, `{"spec":{"extensions":null}}`)
		patchMesh(t, fmt.Sprintf(`{"spec":{"extensions":%s}}`, before))
	})
	patchMesh(t, fmt.Sprintf(`{"spec":{"extensions":{"allow":[{"types":["Lua","Wasm","ExternalProcessing"],`+
		`"namespaceSelector":{"matchLabels":{%q:%q}}}]}}}`, corev1.LabelMetadataName, s.name))
	return s
}

// marking is a module that sets a header of requests.
func marking(value string) []byte {
	p := wasmtest.Plugin()
	return p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, "x-module", value)).Bytes()
}

// refusing is a module that takes no configuration.
func refusing() []byte {
	return wasmtest.Plugin().On(wasmtest.OnConfigure, wasmtest.I32(0), wasmtest.Return).Bytes()
}

// scripting is a script that sets a header of requests.
func scripting(value string) string {
	return fmt.Sprintf("function envoy_on_request(handle) handle:headers():replace('x-script', '%s') end", value)
}

// extending names HTTPExtensions.
func extending(extensions ...string) (out []gwv1.HTTPRouteFilter) {
	for _, name := range extensions {
		out = append(out, gwv1.HTTPRouteFilter{
			Type: gwv1.HTTPRouteFilterExtensionRef,
			ExtensionRef: &gwv1.LocalObjectReference{
				Group: gwv1.Group(v1alpha1.GroupVersion.Group), Kind: v1alpha1.KindHTTPExtension, Name: gwv1.ObjectName(name),
			},
		})
	}
	return out
}

// extension makes one.
func (s *space) extension(name string, spec v1alpha1.HTTPExtensionSpec) *v1alpha1.HTTPExtension {
	s.t.Helper()
	e := &v1alpha1.HTTPExtension{ObjectMeta: metaOf(name), Spec: spec}
	s.create(e)
	return e
}

// extensionSays waits for a condition of an HTTPExtension as it is now, of its only ancestor.
func (s *space) extensionSays(
	e *v1alpha1.HTTPExtension, condition string, status metav1.ConditionStatus, reason, message string,
) {
	s.t.Helper()
	what := fmt.Sprintf("condition %s of HTTPExtension %s is %s, %s", condition, e.Name, status, reason)
	eventually.Passes(s.t, what, func(look require.TestingT) {
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(e), e))
		require.Len(look, e.Status.Ancestors, 1)
		c := meta.FindStatusCondition(e.Status.Ancestors[0].Conditions, condition)
		require.NotNil(look, c)
		require.Equal(look, e.Generation, c.ObservedGeneration)
		require.Equal(look, status, c.Status, "%s: %s", c.Reason, c.Message)
		require.Equal(look, reason, c.Reason, c.Message)
		require.Contains(look, c.Message, message)
	})
}

// shows waits until a URL answers 200, and the application sees a header of a value.
func (s *space) shows(url, header, value string) {
	s.t.Helper()
	eventually.Passes(s.t, fmt.Sprintf("GET %s with %s: %s", url, header, value), func(look require.TestingT) {
		a, err := s.get("client", url)
		require.NoError(look, err)
		require.Equal(look, http.StatusOK, a.Status, a.Body)
		require.Equal(look, []string{value}, a.Headers.Values(header))
	})
}

// TestExtensionsOfACluster: requests go through what a rule names, and through what becomes of it. What can't be used
// is said, and answered an error meanwhile, by that rule alone; and mended, it is used again.
func TestExtensionsOfACluster(t *testing.T) {
	t.Parallel()
	const url, other = "http://server/extended", "http://server/"
	s := extensible(t)
	s.client("client")
	s.server("server")
	s.server("processor", arguments("process", "--mark=seen"), func(d *deployment) {
		d.Spec.Template.Spec.Containers[0].ReadinessProbe.ProbeHandler = tcpProbe("http")
	})
	s.service("server", "server")
	s.service("processor", "processor", func(svc *corev1.Service) {
		svc.Spec.Ports[0].AppProtocol = new("kubernetes.io/h2c")
	})
	s.captured("client", "server", "processor")

	module := &corev1.ConfigMap{
		ObjectMeta: metaOf("module"), BinaryData: map[string][]byte{cluster.ModuleKey: marking("first")},
	}
	s.create(module)
	compiled := s.extension("module", v1alpha1.HTTPExtensionSpec{Wasm: &v1alpha1.WasmExtension{
		ConfigMapRef: v1alpha1.WasmConfigMapReference{Name: "module"}, SHA256: wasm.Digest(marking("first")),
		Request: &v1alpha1.WasmMessage{},
	}})
	script := s.extension("script", v1alpha1.HTTPExtensionSpec{Lua: &v1alpha1.LuaExtension{Source: scripting("first")}})
	asked := s.extension("processor", v1alpha1.HTTPExtensionSpec{ExtProc: &v1alpha1.ExternalProcessing{
		BackendRef: port80("processor"), Request: &v1alpha1.ProcessedMessage{},
	}})
	extended := rule(underPath("/extended"), backend("server"))
	extended.Filters = extending("module", "script", "processor")
	s.create(httpRoute("server", toService("server"), extended, rule(nil, backend("server"))))
	s.programmed("server")
	for _, e := range []*v1alpha1.HTTPExtension{compiled, script, asked} {
		s.extensionSays(e, v1alpha1.EntryConditionProgrammed, metav1.ConditionTrue, v1alpha1.EntryReasonProgrammed, "")
	}
	s.shows(url, "X-Module", "first")
	s.shows(url, "X-Script", "first")
	s.shows(url, "X-Processed", "seen")
	a := s.answers("client", other, "server")
	require.Empty(t, a.Headers.Values("X-Module"), "the other rule names none")

	edit(t, script, func() { script.Spec.Lua.Source = scripting("second") })
	s.shows(url, "X-Script", "second")
	s.badModules(url, other, module, compiled)
	s.shows(url, "X-Script", "second")
	s.shows(url, "X-Processed", "seen")
}

// badModules puts one after the other into the place of a module, and mends each.
func (s *space) badModules(url, other string, module *corev1.ConfigMap, compiled *v1alpha1.HTTPExtension) {
	s.t.Helper()
	put := func(code []byte) {
		s.t.Helper()
		edit(s.t, module, func() { module.BinaryData[cluster.ModuleKey] = code })
	}
	pin := func(digest string) {
		s.t.Helper()
		edit(s.t, compiled, func() { compiled.Spec.Wasm.SHA256 = digest })
	}
	accepted, resolved := string(gwv1.PolicyConditionAccepted), string(gwv1.RouteConditionResolvedRefs)
	unusable := func(says string) {
		s.t.Helper()
		s.extensionSays(compiled, accepted, metav1.ConditionFalse, string(gwv1.PolicyReasonInvalid), says)
		s.says("server", resolved, metav1.ConditionFalse, v1alpha1.RouteReasonInvalidExtension, says)
		breaks(s, url)
		s.answers("client", other, "server")
	}
	second := marking("second")
	put(second)
	unusable(wasm.Digest(second))
	pin(wasm.Digest(second))
	s.shows(url, "X-Module", "second")
	pin("")
	put([]byte("no module"))
	unusable("no module in WebAssembly")
	require.NoError(s.t, world.client.Delete(s.t.Context(), module))
	unusable("does not exist")
	module.ObjectMeta = metaOf(module.Name)
	module.BinaryData[cluster.ModuleKey] = marking("third")
	s.create(module)
	s.shows(url, "X-Module", "third")

	// Nobody but a proxy knows this.
	put(refusing())
	const why, says = v1alpha1.EntryReasonProxyRejected, "refuses its configuration"
	s.extensionSays(compiled, accepted, metav1.ConditionFalse, why, says)
	s.says("server", string(gwv1.RouteConditionPartiallyInvalid), metav1.ConditionTrue, why, says)
	breaks(s, url)
	s.answers("client", other, "server")
	put(marking("fourth"))
	s.shows(url, "X-Module", "fourth")
	s.extensionSays(compiled, accepted, metav1.ConditionTrue, string(gwv1.PolicyReasonAccepted), "")
}
