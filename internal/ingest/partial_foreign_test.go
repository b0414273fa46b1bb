// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// tenants is a world in which namespaces have routes for a Service of another one.
type tenants struct {
	*testing.T
	*world
}

// newTenants has all of the case over-budget but its routes.
func newTenants(t *testing.T) *tenants {
	w := &tenants{t, newWorld()}
	for _, o := range readManifests(t, "testdata/over-budget/input.yaml") {
		if _, ok := o.(*gwv1.HTTPRoute); !ok {
			w.set(t, o)
		}
	}
	w.store.Pods.MarkSettled()
	return w
}

// has sets the ready endpoints of a Service with so many ports.
func (w *tenants) has(namespace, name string, ports, endpoints int) {
	svc, sliced := serviceOf(namespace, name, ports, 80)
	slice := endpointSlice(name, sliced, addresses(0, endpoints)...)
	slice.Namespace, slice.Labels[discoveryv1.LabelServiceName] = namespace, name
	w.set(w.T, svc, slice)
}

// leads has a namespace's route for owner/web lead to ports of its Services.
func (w *tenants) leads(author string, to ...model.ServicePort) {
	r := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: author, Name: "route"}}
	group, kind, owner := gwv1.Group(""), gwv1.Kind("Service"), gwv1.Namespace("owner")
	r.Spec.ParentRefs = []gwv1.ParentReference{{Group: &group, Kind: &kind, Name: "web", Namespace: &owner}}
	rule := gwv1.HTTPRouteRule{}
	for _, p := range to {
		ref := gwv1.HTTPBackendRef{}
		ref.Name, ref.Namespace, ref.Port = gwv1.ObjectName(p.Service), new(gwv1.Namespace(p.Namespace)), new(int32(p.Port))
		rule.BackendRefs = append(rule.BackendRefs, ref)
	}
	r.Spec.Rules = []gwv1.HTTPRouteRule{rule}
	w.set(w.T, r)
}

// most is how many endpoints of a port the owner's waypoint knows.
func (w *tenants) most(port model.ServicePort) int {
	w.graph.Flush()
	return w.in.MostEndpointsAt(nil, cluster.Key{Namespace: "owner", Name: names.AutomaticWaypoint}, port)
}

// resolved is what the status of a namespace's route says of its backends.
func (w *tenants) resolved(author string) metav1.Condition {
	w.graph.Flush()
	r := w.in.Report.Get(nil, model.ObjectRef{Kind: KindHTTPRoute, Namespace: author, Name: "route"})
	return *meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.RouteConditionResolvedRefs))
}

func portOf(namespace, name string) model.ServicePort {
	return model.ServicePort{Namespace: namespace, Service: name, Port: 80}
}

// TestEndpointsOfOneForeignNamespace: what it has beyond its budget a waypoint of another doesn't know, route and
// Service say so, and it has all again as soon as it has less. Nobody else has less for it.
func TestEndpointsOfOneForeignNamespace(t *testing.T) {
	w := newTenants(t)
	large, small, web := portOf("consumer-a", "large"), portOf("consumer-a", "small"), portOf("owner", "web")
	w.has("consumer-a", "large", 1, 2*MostEndpointsOfForeign)
	w.has("consumer-a", "small", 1, 100)
	own := endpointSlice("web-1", []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		addresses(0, 3*MostEndpointsOfForeign)...)
	own.Namespace = "owner"
	w.set(t, own)
	w.has("consumer-b", "large", 1, MostEndpointsOfForeign)
	w.leads("consumer-a", large, small)
	w.leads("consumer-b", portOf("consumer-b", "large"), web)

	require.Equal(t, MostEndpointsOfForeign/2, w.most(large), "a power of two, so that it stays")
	require.GreaterOrEqual(t, w.most(small), 100)
	require.Equal(t, math.MaxInt, w.most(web), "they are the owner's own")
	require.Equal(t, math.MaxInt, w.most(portOf("consumer-b", "large")))
	require.Equal(t, metav1.ConditionTrue, w.resolved("consumer-a").Status)
	require.Contains(t, w.resolved("consumer-a").Message,
		"waypoint owner/fairway-waypoint knows only some endpoints of Service consumer-a/large: ")
	require.Equal(t, "All backends were found.", w.resolved("consumer-b").Message)
	partialAt := func(name string) string {
		return w.in.LeftOut.Get(nil, cluster.Key{Namespace: "consumer-a", Name: name}).Waypoint
	}
	require.Equal(t, "owner/fairway-waypoint", partialAt("large"))
	require.Empty(t, partialAt("small"))

	w.has("consumer-a", "large", 1, MostEndpointsOfForeign/2)
	require.Equal(t, math.MaxInt, w.most(large))
	require.Equal(t, "All backends were found.", w.resolved("consumer-a").Message)
	require.Empty(t, partialAt("large"))
}

// TestEndpointsOfManyForeignNamespaces: together they have no more than there is for all, however many one tenant has,
// and who has little keeps it.
func TestEndpointsOfManyForeignNamespaces(t *testing.T) {
	const greedy = 40
	w := newTenants(t)
	w.has("modest", "x", 1, 500)
	w.leads("modest", portOf("modest", "x"))
	var ports []model.ServicePort
	for n := range greedy {
		namespace := fmt.Sprint("greedy-", n)
		for _, name := range []string{"x", "y"} {
			w.has(namespace, name, 1, MostEndpointsOfForeign)
			ports = append(ports, portOf(namespace, name))
		}
		w.leads(namespace, ports[2*n:]...)
	}
	sum := 0
	for _, p := range ports {
		sum += w.most(p)
	}
	require.LessOrEqual(t, sum, MostEndpointsOfForeigns)
	require.Greater(t, sum, MostEndpointsOfForeigns/4, "most of what there is, though parts are powers of two")
	require.Equal(t, math.MaxInt, w.most(portOf("modest", "x")))
}

// TestBackendsOfOneForeignNamespace: a route that leads to more of them than a waypoint of another namespace has room
// for isn't accepted there, and says so; the owner's own is.
func TestBackendsOfOneForeignNamespace(t *testing.T) {
	w := newTenants(t)
	accepted := func(author string) metav1.Condition {
		w.graph.Flush()
		r := w.in.Report.Get(nil, model.ObjectRef{Kind: KindHTTPRoute, Namespace: author, Name: "route"})
		return *meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.RouteConditionAccepted))
	}
	w.has("consumer-a", "x", mostOfConsumer.backends+1, 1)
	w.has("owner", "x", mostOfConsumer.backends+1, 1)
	lead := func(author string, n int) {
		var to []model.ServicePort
		for p := range n {
			to = append(to, model.ServicePort{Namespace: author, Service: "x", Port: uint16(80 + p)})
		}
		w.leads(author, to...)
	}
	lead("consumer-a", mostOfConsumer.backends)
	lead("owner", mostOfConsumer.backends+1)
	require.Equal(t, metav1.ConditionTrue, accepted("consumer-a").Status)
	require.Equal(t, metav1.ConditionTrue, accepted("owner").Status)
	lead("consumer-a", mostOfConsumer.backends+1)
	require.Equal(t, string(v1alpha1.RouteReasonOverBudget), accepted("consumer-a").Reason)
	require.Contains(t, accepted("consumer-a").Message, "512 backends outside of the Services' namespace")
	require.Equal(t, metav1.ConditionTrue, accepted("owner").Status)
}

// TestForeignEndpointsComeAndGo: an endpoint that comes or goes has nothing counted again but its own Service.
func TestForeignEndpointsComeAndGo(t *testing.T) {
	const namespaces, services, endpoints = 20, 20, 300
	w := newTenants(t)
	for n := range namespaces {
		namespace := fmt.Sprint("tenant-", n)
		var to []model.ServicePort
		for s := range services {
			w.has(namespace, fmt.Sprint("x-", s), 1, endpoints)
			to = append(to, portOf(namespace, fmt.Sprint("x-", s)))
		}
		w.leads(namespace, to[:16]...)
	}
	at, told := portOf("tenant-3", "x-3"), 0
	w.in.mostForeign.Watch(foreign{cluster.Key{Namespace: "owner", Name: names.AutomaticWaypoint}, "tenant-3"},
		func(int) { told++ })
	w.graph.Flush()
	require.Less(t, w.most(at), endpoints)
	before := w.graph.Reads
	w.has("tenant-3", "x-3", 1, endpoints-1)
	w.graph.Flush()
	require.Less(t, w.graph.Reads-before, uint64(20))
	require.Equal(t, 1, told)
}

// TestSomeEndpoints: they are as many as there may be, in the order of all, those that drain last; and one that comes
// or goes changes one at most.
func TestSomeEndpoints(t *testing.T) {
	const all, most = 1000, 100
	list := make([]model.Endpoint, 0, all)
	for n, a := range addresses(0, all) {
		list = append(list, model.Endpoint{Address: netip.AddrPortFrom(netip.MustParseAddr(a), 80), Draining: n%2 == 0})
	}
	slices.SortFunc(list, func(a, b model.Endpoint) int { return a.Address.Compare(b.Address) })
	require.Equal(t, list, Some(list, all))
	require.Equal(t, list, Some(list, math.MaxInt))
	some := Some(list, most)
	require.Len(t, some, most)
	require.True(t, slices.IsSortedFunc(some, func(a, b model.Endpoint) int { return a.Address.Compare(b.Address) }))
	require.False(t, slices.ContainsFunc(some, func(e model.Endpoint) bool { return e.Draining }))
	for range 20 {
		gone := rand.IntN(all)
		less := Some(slices.Delete(slices.Clone(list), gone, gone+1), most)
		kept := 0
		for _, e := range some {
			if slices.ContainsFunc(less, func(o model.Endpoint) bool { return o.Address == e.Address }) {
				kept++
			}
		}
		require.GreaterOrEqual(t, kept, most-1)
	}
}

// TestOneAddressOfAnEndpoint: the others have no meaning, and kube-proxy doesn't look at them. So budgets of endpoints
// are ones of addresses.
func TestOneAddressOfAnEndpoint(t *testing.T) {
	g := memo.New()
	store := cluster.NewStore(g)
	in := New(g, store, nil)
	svc, sliced := serviceOf("shop", "web", 1, 80)
	slice := endpointSlice("web-1", sliced)
	for n := range 5 {
		e := endpointSlice("", nil, addresses(100*n, 100*n+100)[0]).Endpoints[0]
		e.Addresses = addresses(100*n, 100*n+100)
		slice.Endpoints = append(slice.Endpoints, e)
	}
	slice.Endpoints[3].Addresses[0] = "no address"
	slice.Endpoints[4].Addresses = nil
	store.Services.Set(svc)
	store.EndpointSlices.Set(slice)
	var got []string
	for _, e := range in.Endpoints.Get(nil, portOf("shop", "web")) {
		got = append(got, e.Address.String())
	}
	require.Equal(t, []string{"10.1.0.0:80", "10.1.0.100:80", "10.1.0.200:80"}, got)
}
