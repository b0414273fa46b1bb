// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// split returns an engine that runs the case "split", and its objects by type and name.
func split(t *testing.T) (h *harness, mesh *v1alpha1.Mesh, route *gwv1.HTTPRoute, svc *corev1.Service) {
	h = newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
		switch o := obj.(type) {
		case *v1alpha1.Mesh:
			mesh = o
		case *gwv1.HTTPRoute:
			route = o
		case *corev1.Service:
			if o.Name == "reviews" {
				svc = o
			}
		}
	}
	h.Synced()
	h.process()
	require.NotNil(t, route)
	require.NotNil(t, svc)
	require.Len(t, h.reports, 1)
	require.Contains(t, h.bindings, svc.Namespace+"/"+svc.Name)
	h.told = nil
	return h, mesh, route, svc
}

// TestRecreatedInOneBatch: the status of an object went with it, so the next one of its name is told of even if nothing
// else is different.
func TestRecreatedInOneBatch(t *testing.T) {
	h, _, route, svc := split(t)
	h.process()
	require.Empty(t, h.told)

	again := route.DeepCopy()
	again.UID = "another"
	h.Delete(route)
	h.Set(again)
	h.process()
	require.Equal(t, []string{"no " + route.Name, route.Name}, h.told)
	for _, r := range h.reports {
		require.Equal(t, types.UID("another"), r.UID)
	}

	h.told = nil
	for range 3 {
		h.Delete(svc)
		h.Set(svc)
	}
	require.Len(t, h.objects, 1, "however often")
	h.process()
	require.Subset(t, h.told, []string{"unbound " + svc.Name, "bound " + svc.Name})

	h.told = nil
	h.Delete(svc)
	h.process()
	require.Contains(t, h.told, "unbound "+svc.Name)
}

// TestWithoutAMeshNothingIsSaid: statuses are taken back once the Mesh is being deleted, while its proxies go on.
func TestWithoutAMeshNothingIsSaid(t *testing.T) {
	h, mesh, _, svc := split(t)
	scope := xds.Scope("waypoint/bookshop/fairway-waypoint")
	h.subscribe(scope)
	serves := served(h.cache, scope)
	going := mesh.DeepCopy()
	going.Generation++
	going.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	h.Set(going)
	h.process()
	for _, r := range h.reports {
		require.Empty(t, r.Parents)
	}
	require.Empty(t, h.bindings)
	require.Equal(t, serves, served(h.cache, scope))

	h.Set(mesh)
	h.process()
	for _, r := range h.reports {
		require.NotEmpty(t, r.Parents)
	}
	require.Contains(t, h.bindings, svc.Namespace+"/"+svc.Name)
}
