// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

func TestFactsOfAPod(t *testing.T) {
	m := bookshop(t)
	got, found := m.Pod(in("reviews-0"))
	require.True(t, found)
	require.True(t, got.Member)
	require.Equal(t, "spiffe://cluster.local/ns/bookshop/sa/reviews", got.Identity)
	require.Equal(t, []uint16{8080}, got.Guard.Only, "requests are decided at the waypoint")
	var policies []string
	for _, p := range got.Guard.Network {
		policies = append(policies, p.Name.Name)
	}
	require.Equal(t, []string{"nothing-else", "shop-to-reviews"}, policies)

	_, found = m.Pod(in("nobody"))
	require.False(t, found)
}

func TestFactsOfAService(t *testing.T) {
	m := bookshop(t)
	got, found := m.Service(in("reviews"))
	require.True(t, found)
	require.False(t, got.Headless)
	require.Len(t, got.Ports, 1)
	port := got.Ports[0]
	require.Equal(t, model.ProtocolHTTP, port.Served)
	require.Len(t, port.Guards, 1)
	require.Equal(t, "only-get", port.Guards[0].Application[0].Name.Name)
	require.Len(t, port.Endpoints, 1)
	require.Equal(t, in("reviews-0"), port.Endpoints[0].Pod)
	require.True(t, port.Endpoints[0].MTLS)
	require.Empty(t, port.Routes)

	m.add(t, `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules: [{backendRefs: [{name: other, port: 80}]}]`)
	got, _ = m.Service(in("reviews"))
	require.Equal(t, []model.ObjectRef{{Kind: "HTTPRoute", Namespace: "bookshop", Name: "split"}}, got.Ports[0].Routes)

	got, found = m.Service(in("other"))
	require.True(t, found)
	require.Empty(t, got.Ports[0].Guards, "without a waypoint nothing is guarded but at its pods")

	_, found = m.Service(in("nobody"))
	require.False(t, found)
	ends, found := m.Endpoints(model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 81})
	require.False(t, found)
	require.Empty(t, ends)
}
