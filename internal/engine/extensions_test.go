// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestExtensions has a filter whose configuration says how many ports a waypoint has, and one of nodes: each is served
// to who asks for it in a scope that has it, and follows what it is made of, in one step with it.
func TestExtensions(t *testing.T) {
	h := newHarness(t)
	h.resources.extensions = func(c *memo.Ctx, scope xds.Scope) []*corev3.TypedExtensionConfig {
		if _, ok := catalogue.NodeOf(scope); ok {
			return []*corev3.TypedExtensionConfig{envoy.Extension("of-nodes", wrapperspb.String("node"))}
		}
		w := h.resources.waypoint(c, scope)
		if w == nil {
			return nil
		}
		return []*corev3.TypedExtensionConfig{envoy.Extension("ports", wrapperspb.String(fmt.Sprint(len(w.Ports))))}
	}
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Synced()
	want := func(scope xds.Scope, name string, wanted bool) xds.Key {
		k := scope.Key(xds.TypeExtension, name)
		h.Interest(xds.Interest{Key: k, Wanted: wanted})
		h.process()
		return k
	}
	says := func(k xds.Key) string {
		r, _ := h.cache.Get(k)
		if r == nil {
			return ""
		}
		v, err := as[*corev3.TypedExtensionConfig](t, r).GetTypedConfig().UnmarshalNew()
		require.NoError(t, err)
		return v.(*wrapperspb.StringValue).GetValue()
	}
	ports := want(sharedScope, "ports", true)
	before := says(ports)
	require.NotEmpty(t, before)
	require.Empty(t, says(want(sharedScope, "of-nodes", true)), "another scope's")
	require.Empty(t, says(want("waypoint/bookshop/none", "ports", true)))
	require.Equal(t, "node", says(want(catalogue.NodeScope("n"), "of-nodes", true)))

	for _, obj := range caseOf(t, "split") {
		if svc, ok := obj.(*corev1.Service); ok && svc.Name == "reviews" {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "more", Port: 81})
			h.Set(svc)
		}
	}
	h.process()
	require.NotEqual(t, before, says(ports))
	want(sharedScope, "ports", false)
	require.Empty(t, says(ports), "nobody asks for it any more")
}

// TestGuardsOfTCPPorts are for the waypoint that passes the ports on, and list all of them.
func TestGuardsOfTCPPorts(t *testing.T) {
	h := newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Synced()
	has := func(scope xds.Scope) *xds.Resource {
		k := scope.Key(xds.TypeExtension, names.AuthorizationTCP)
		h.Interest(xds.Interest{Key: k, Wanted: true})
		h.process()
		r, _ := h.cache.Get(k)
		return r
	}
	require.Nil(t, has(catalogue.NodeScope("n")))
	r := has(sharedScope)
	require.NotNil(t, r)
	said := string(as[*corev3.TypedExtensionConfig](t, r).GetTypedConfig().GetValue())
	w := h.resources.waypoint(nil, sharedScope)
	require.NotEmpty(t, w.Ports)
	for _, p := range w.Ports {
		require.Contains(t, said, "'"+names.ServerName(p.Namespace, p.Service, p.Port)+"'")
	}
}
