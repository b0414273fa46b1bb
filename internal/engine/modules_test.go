// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// TestEditsOfModulesAreTablesOnly: a module that is edited, or goes, changes the tables of routes that use it and no
// listener, so that nothing drains; and where there is none any more, no table has one.
func TestEditsOfModulesAreTablesOnly(t *testing.T) {
	const scope xds.Scope = "waypoint/shop/fairway-waypoint"
	h := newHarness(t)
	objects := caseOf(t, "modules")
	h.given(objects)
	h.subscribe(scope)
	type state struct{ listeners, tables map[string]*xds.Resource }
	now := func() state {
		h.process()
		out := state{map[string]*xds.Resource{}, map[string]*xds.Resource{}}
		for _, r := range h.cache.List(scope, xds.TypeListener) {
			out.listeners[r.Name()] = r
		}
		for _, r := range h.cache.List(scope, xds.TypeRoute) {
			out.tables[r.Name()] = r
		}
		return out
	}
	const table = "service/shop/web/80"
	marked := func(s state, mark string) bool {
		return bytes.Contains(s.tables[table].Any().GetValue(), []byte(mark))
	}
	before := now()
	require.NotEmpty(t, before.listeners)
	require.False(t, marked(before, "x-edited"))
	for _, o := range objects {
		cm, ok := o.(*corev1.ConfigMap)
		if !ok || cm.Namespace != "shop" || cm.Name != "module" {
			continue
		}
		p := wasmtest.Plugin()
		edited := cm.DeepCopy()
		edited.BinaryData["module.wasm"] = p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, "x-edited", "1")).Bytes()
		h.Set(edited)
		after := now()
		require.True(t, marked(after, "x-edited"))
		h.Delete(edited)
		gone := now()
		require.False(t, marked(gone, "x-edited"))
		require.True(t, marked(gone, "an extension of the rule can't be used"))
		for name, l := range before.listeners {
			require.True(t, l.Equal(after.listeners[name]) && l.Equal(gone.listeners[name]), name)
		}
		require.False(t, before.tables[table].Equal(after.tables[table]))
		return
	}
	t.Fatal("the case has no such ConfigMap")
}
