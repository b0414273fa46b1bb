// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestGuardsOfTCPPorts are for the waypoint that passes the ports on, and list all of them, in one step with these.
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
	says := func(r *xds.Resource) (ports int) {
		require.NotNil(t, r)
		said := string(as[*corev3.TypedExtensionConfig](t, r).GetTypedConfig().GetValue())
		gateway, _ := catalogue.WaypointOf(sharedScope)
		w := h.ingest.Waypoint.Get(nil, gateway)
		for _, p := range w.Ports {
			require.Contains(t, said, "'"+names.ServerName(p.Namespace, p.Service, p.Port)+"'")
		}
		return len(w.Ports)
	}
	before := says(r)
	require.NotZero(t, before)

	for _, obj := range caseOf(t, "split") {
		if svc, ok := obj.(*corev1.Service); ok && svc.Name == "reviews" {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "more", Port: 81})
			h.Set(svc)
		}
	}
	require.Equal(t, before+1, says(has(sharedScope)))

	k := sharedScope.Key(xds.TypeExtension, names.AuthorizationTCP)
	h.Interest(xds.Interest{Key: k})
	h.process()
	r, _ = h.cache.Get(k)
	require.Nil(t, r, "nobody asks for it any more")
}
