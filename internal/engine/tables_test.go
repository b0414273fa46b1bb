// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestTablesComeWithWhatLeadsToThem, before any proxy asks for them: the listener then waits for those of new ports.
func TestTablesComeWithWhatLeadsToThem(t *testing.T) {
	const scope xds.Scope = "waypoint/bookshop/fairway-waypoint"
	h := newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Synced()
	tables := func() (out []string) {
		h.process()
		for _, r := range h.cache.List(scope, xds.TypeRoute) {
			out = append(out, r.Name())
		}
		return out
	}
	all := xds.Interest{Key: scope.Key(xds.TypeScopedRoute, xds.Wildcard), Wanted: true}
	h.Interest(all)
	require.NotEmpty(t, tables())
	require.Len(t, tables(), len(h.cache.List(scope, xds.TypeScopedRoute)))

	one := xds.Interest{Key: scope.Key(xds.TypeRoute, tables()[0]), Wanted: true}
	h.Interest(one)
	one.Wanted = false
	h.Interest(one)
	require.Len(t, tables(), len(h.cache.List(scope, xds.TypeScopedRoute)), "they stay as long as something leads to them")
}

// TestClustersOfAllNodes: a replica that has no node that dials an address knows all the same what such a node should
// have, to judge what other replicas say of theirs.
func TestClustersOfAllNodes(t *testing.T) {
	h := newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Synced()
	const address = "10.96.0.10:80"
	for _, scope := range []xds.Scope{catalogue.AllNodes, "node/node1"} {
		h.Interest(xds.Interest{Key: scope.Key(xds.TypeCluster, address), Wanted: true})
	}
	h.process()
	all, known := h.cache.Get(catalogue.AllNodes.Key(xds.TypeCluster, address))
	require.True(t, known)
	require.NotNil(t, all)
	one, _ := h.cache.Get(xds.Scope("node/node1").Key(xds.TypeCluster, address))
	require.True(t, all.Equal(one))
}

// TestAPortHasOneCluster: that of what it is, and the other one in the very revision in which it turns, so that proxies
// have it before the table that leads there.
func TestAPortHasOneCluster(t *testing.T) {
	const scope xds.Scope = "waypoint/bookshop/mine"
	const requests, connections = "service/bookshop/chat/1234", "inbound/1234.chat.bookshop"
	h := newHarness(t)
	var route *gwv1.HTTPRoute
	for _, obj := range caseOf(t, "consumer-and-grpc") {
		if r, ok := obj.(*gwv1.HTTPRoute); ok && r.Name == "chat-http" {
			route = r.DeepCopy()
		}
		h.Set(obj)
	}
	h.Synced()
	for _, k := range []xds.Key{
		scope.Key(xds.TypeCluster, xds.Wildcard), scope.Key(xds.TypeScopedRoute, xds.Wildcard),
		scope.Key(xds.TypeEndpoint, "waypoint/bookshop/chat/1234"),
	} {
		h.Interest(xds.Interest{Key: k, Wanted: true})
	}
	has := func(typeURL, name string) bool {
		res, _ := h.cache.Get(scope.Key(typeURL, name))
		return res != nil
	}
	is := func(protocol string) {
		h.process()
		require.Equal(t, protocol == "HTTP", has(xds.TypeCluster, requests))
		require.Equal(t, protocol == "TCP", has(xds.TypeCluster, connections))
		require.True(t, has(xds.TypeEndpoint, "waypoint/bookshop/chat/1234"), "they have the same endpoints")
	}
	is("TCP")
	port := gwv1.PortNumber(1234)
	route.Name, route.Spec.ParentRefs[0].Port = "odd", &port
	h.Set(route)
	is("HTTP")
	h.Delete(route)
	is("TCP")

	name, ns := gwv1.ObjectName("chat"), gwv1.Namespace("bookshop")
	other := route.DeepCopy()
	other.Name, other.Spec.ParentRefs[0].Port = "to-odd", new(gwv1.PortNumber)
	*other.Spec.ParentRefs[0].Port = 80
	other.Spec.Rules = []gwv1.HTTPRouteRule{{BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
		BackendObjectReference: gwv1.BackendObjectReference{Name: name, Namespace: &ns, Port: &port},
	}}}}}
	h.Set(other)
	h.process()
	require.True(t, has(xds.TypeCluster, requests) && has(xds.TypeCluster, connections),
		"requests to another port are sent there")
}
