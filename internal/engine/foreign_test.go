// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestWaypointsKnowSomeEndpointsOfOthers: a waypoint is told of no more endpoints of another namespace than it has room
// for, until that has fewer, and of all that its own namespace has.
func TestWaypointsKnowSomeEndpointsOfOthers(t *testing.T) {
	const scope xds.Scope = "waypoint/owner/fairway-waypoint"
	const large = 2 * ingest.MostEndpointsOfForeign
	h := budgetHarness(t)
	service := func(name string) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "consumer-a", Name: name}}
		svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}}
		h.Set(svc)
	}
	has := func(namespace, name string, endpoints int) {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		}
		for n := range endpoints {
			slice.Endpoints = append(slice.Endpoints,
				discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("11.0.%d.%d", n/256, n%256)}})
		}
		h.Set(slice)
	}
	told := func(namespace, name string) (out int) {
		r, _ := h.cache.Get(scope.Key(xds.TypeEndpoint, names.WaypointEndpoints(namespace, name, 80)))
		require.NotNil(t, r)
		for _, l := range as[*endpointv3.ClusterLoadAssignment](t, r).GetEndpoints() {
			out += len(l.GetLbEndpoints())
		}
		return out
	}
	service("a")
	service("b")
	has("consumer-a", "a", large)
	has("consumer-a", "b", 10)
	has("owner", "web", large)
	h.Set(&gwv1beta1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: "consumer-a", Name: "owner"},
		Spec: gwv1.ReferenceGrantSpec{
			From: []gwv1.ReferenceGrantFrom{{Group: gwv1.GroupName, Kind: "HTTPRoute", Namespace: "owner"}},
			To:   []gwv1.ReferenceGrantTo{{Kind: "Service"}},
		},
	})
	r := expressionRoute("owner", "route") // a consumer's would lead to pods only
	namespace, port := gwv1.Namespace("consumer-a"), gwv1.PortNumber(80)
	for _, name := range []gwv1.ObjectName{"a", "b"} {
		ref := gwv1.HTTPBackendRef{}
		ref.Name, ref.Namespace, ref.Port = name, &namespace, &port
		r.Spec.Rules[0].BackendRefs = append(r.Spec.Rules[0].BackendRefs, ref)
	}
	h.Set(r)
	h.process()
	h.subscribe(scope)
	require.Equal(t, ingest.MostEndpointsOfForeign/2, told("consumer-a", "a"))
	require.Equal(t, 10, told("consumer-a", "b"))
	require.Equal(t, large, told("owner", "web"))

	const fewer = ingest.MostEndpointsOfForeign/2 + 100
	has("consumer-a", "a", fewer)
	h.process()
	require.Equal(t, fewer, told("consumer-a", "a"))
	has("consumer-a", "a", large)
	h.process()
	require.Equal(t, ingest.MostEndpointsOfForeign/2, told("consumer-a", "a"))
}
