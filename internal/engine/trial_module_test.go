// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// extendedBy are a route whose rule goes through a module, the module, and a Mesh that allows it.
func extendedBy(code []byte) []client.Object {
	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	mesh.Spec.TrustDomain = "example.org"
	mesh.Spec.Extensions = &v1alpha1.Extensions{
		Allow: []v1alpha1.AllowedExtensions{{Types: []v1alpha1.ExtensionType{v1alpha1.ExtensionWasm}}},
	}
	r := routeOf("bookshop", "extended", 1, "extended", "/extended")
	r.Spec.Rules[0].Filters = []gwv1.HTTPRouteFilter{{
		Type: gwv1.HTTPRouteFilterExtensionRef,
		ExtensionRef: &gwv1.LocalObjectReference{
			Group: gwv1.Group(v1alpha1.GroupVersion.Group), Kind: v1alpha1.KindHTTPExtension, Name: "module",
		},
	}}
	return []client.Object{
		mesh, moduleIn(code), r,
		&v1alpha1.HTTPExtension{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "module"},
			Spec: v1alpha1.HTTPExtensionSpec{Wasm: &v1alpha1.WasmExtension{
				ConfigMapRef: v1alpha1.WasmConfigMapReference{Name: "module"}, Request: &v1alpha1.WasmMessage{},
			}},
		},
	}
}

func moduleIn(code []byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "module"},
		BinaryData: map[string][]byte{cluster.ModuleKey: code},
	}
}

// TestEnvoyRejectsModules that refuse their configuration, or trap at their start, which nobody but Envoy knows: their
// rules are left out, their author reads why, and all else goes on.
func TestEnvoyRejectsModules(t *testing.T) {
	xdstest.Binary(t)
	configured := func(does ...wasmtest.Op) func() []byte {
		return wasmtest.Plugin().On(wasmtest.OnConfigure, does...).Bytes
	}
	bad := []struct {
		what string
		code func() []byte
	}{
		{"it refuses its configuration", configured(wasmtest.I32(0), wasmtest.Return)},
		{"it traps at it", configured(wasmtest.Trap)},
		{"it refuses to start", func() []byte {
			p := wasmtest.Plugin()
			n := slices.IndexFunc(p.Functions, func(f wasmtest.Function) bool { return f.Name == "proxy_on_vm_start" })
			p.Functions[n].Body = []wasmtest.Op{wasmtest.I32(0)}
			return p.Bytes()
		}},
		{"it traps at once", func() []byte {
			p := wasmtest.Plugin()
			p.Functions = append(p.Functions, wasmtest.Function{
				Name: "_initialize", Signature: ":", Body: []wasmtest.Op{wasmtest.Trap},
			})
			return p.Bytes()
		}},
		// Envoy takes the table with this one, and no other from then on.
		{"no thread can start it", func() []byte {
			return wasmtest.Plugin().TriedUntil(time.Now().Add(2 * time.Second)).Bytes()
		}},
	}
	good := wasmtest.Plugin().Bytes()

	s := startServer(t, sharedCluster(t, extendedBy(good)...)...)
	e := xdstest.Start(t, xdstest.Options{XDSSocket: s.socket, Wildcards: true, Internal: true, Isolated: true})
	edits := 0
	// edited tells whether Envoy has the module, once it has an edit of another route.
	edited := func() (extended bool) {
		t.Helper()
		edits++
		header := fmt.Sprint("edit-", edits)
		s.Set(routeOf("bookshop", "reviews", int64(10+edits), header, "/owner"))
		e.Eventually(header, func() bool {
			st := s.server.State(sharedScope.Key(xds.TypeRoute, sharedTable))
			if len(st.Proxies) != 1 || st.Proxies[0].State != xds.Acked {
				return false
			}
			dump, err := e.Get("/config_dump?resource=dynamic_route_configs")
			extended = strings.Contains(dump, "bookshop/module")
			return err == nil && strings.Contains(dump, `"`+header+`"`)
		})
		return extended
	}
	reported := func(kind, name, condition string) *metav1.Condition {
		t.Helper()
		var c *metav1.Condition
		require.NoError(t, s.Inspect(t.Context(), func(*ingest.Ingest) {
			of := s.reports[model.ObjectRef{Kind: kind, Namespace: "bookshop", Name: name}]
			c = meta.FindStatusCondition(conditionsOf(of), condition)
		}))
		require.NotNil(t, c)
		return c
	}
	require.True(t, edited())
	for _, b := range bad {
		s.Set(moduleIn(b.code()))
		eventually.True(t, b.what, func() bool { return !edited() })
		for _, kind := range []string{ingest.KindHTTPRoute, v1alpha1.KindHTTPExtension} {
			name := map[string]string{ingest.KindHTTPRoute: "extended", v1alpha1.KindHTTPExtension: "module"}[kind]
			c := reported(kind, name, "Accepted")
			require.Equal(t, metav1.ConditionFalse, c.Status, b.what)
			require.Equal(t, "ProxyRejected", c.Reason, b.what)
			require.Contains(t, c.Message, "HTTPExtension module: the module fails at its start", b.what)
		}
		require.Equal(t, metav1.ConditionTrue, reported(ingest.KindHTTPRoute, "reviews", "Accepted").Status, b.what)
		s.Set(moduleIn(good))
		require.True(t, edited(), b.what)
		require.Equal(t, metav1.ConditionTrue, reported(v1alpha1.KindHTTPExtension, "module", "Accepted").Status, b.what)
	}
}
