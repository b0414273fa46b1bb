// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// serviceOf is a Service with so many ports, from a number on, and those of its EndpointSlices.
func serviceOf(namespace, name string, ports, from int) (*corev1.Service, []discoveryv1.EndpointPort) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	var sliced []discoveryv1.EndpointPort
	for n := range ports {
		name, number := fmt.Sprint("p", n), int32(from+n)
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: number})
		sliced = append(sliced, discoveryv1.EndpointPort{Name: &name, Port: &number})
	}
	return svc, sliced
}

// TestPortsShareWhatIsReadOfTheirService: a Service of many ports and endpoints costs the sum of both, not the product,
// to read.
func TestPortsShareWhatIsReadOfTheirService(t *testing.T) {
	const ports, endpoints = 100, 400
	g := memo.New()
	store := cluster.NewStore(g)
	in := New(g, store, nil)
	svc, sliced := serviceOf("shop", "web", ports, 1000)
	store.Services.Set(svc)
	for n := range 4 {
		store.EndpointSlices.Set(endpointSlice(fmt.Sprint("web-", n), sliced, addresses(100*n, 100*n+endpoints/4)...))
	}
	told := 0
	for n := range ports {
		in.Endpoints.Watch(model.ServicePort{Namespace: "shop", Service: "web", Port: uint16(1000 + n)},
			func(list []model.Endpoint) {
				told = len(list)
			})
	}
	g.Flush()
	require.Equal(t, endpoints, told)
	require.Less(t, g.Reads, uint64(10*(ports+endpoints)))
	before := g.Reads
	store.EndpointSlices.Set(endpointSlice("web-0", sliced, addresses(0, 99)...))
	g.Flush()
	require.Equal(t, endpoints-1, told)
	require.Less(t, g.Reads-before, uint64(3*(ports+endpoints/4)), "one slice of four, and what each port reads")
}

// TestEndpointsOfSeveralSlices: ports of one name may have other numbers in other slices, and an endpoint may be in
// two.
func TestEndpointsOfSeveralSlices(t *testing.T) {
	g := memo.New()
	store := cluster.NewStore(g)
	in := New(g, store, nil)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	svc.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81}}
	store.Services.Set(svc)
	port := func(name string, number int32) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: &name, Port: &number}
	}
	udp := port("a", 53)
	udp.Protocol = new(corev1.ProtocolUDP)
	store.EndpointSlices.Set(endpointSlice("web-1", []discoveryv1.EndpointPort{udp, port("a", 9090), port("b", 81)},
		"10.1.0.2", "10.1.0.1"))
	store.EndpointSlices.Set(endpointSlice("web-2", []discoveryv1.EndpointPort{port("a", 8080)}, "10.1.0.3", "10.1.0.2"))
	store.EndpointSlices.Set(endpointSlice("web-3", []discoveryv1.EndpointPort{port("a", 8080)}, "no address", "10.1.0.3"))
	names := endpointSlice("web-4", []discoveryv1.EndpointPort{port("a", 8080)}, "10.1.0.9")
	names.AddressType = discoveryv1.AddressTypeFQDN
	store.EndpointSlices.Set(names)
	at := func(number uint16) (out []string) {
		for _, e := range in.Endpoints.Get(nil, model.ServicePort{Namespace: "shop", Service: "web", Port: number}) {
			out = append(out, e.Address.String())
		}
		return out
	}
	require.Equal(t, []string{"10.1.0.1:9090", "10.1.0.2:8080", "10.1.0.2:9090", "10.1.0.3:8080"}, at(80))
	require.Equal(t, []string{"10.1.0.1:81", "10.1.0.2:81"}, at(81))
	require.Empty(t, at(82))
}

// TestMostEndpoints: a Service of many ports and endpoints makes no larger lists than there may be, every port of it
// has endpoints, and no other Service has fewer for it.
func TestMostEndpoints(t *testing.T) {
	const ports, endpoints = 1000, 300
	g := memo.New()
	store := cluster.NewStore(g)
	in := New(g, store, nil)
	service := func(namespace, name string, n int) []discoveryv1.EndpointPort {
		svc, out := serviceOf(namespace, name, n, 1)
		store.Services.Set(svc)
		return out
	}
	at := func(namespace, name string, port uint16) (out []netip.Addr) {
		g.Flush()
		list := in.Endpoints.Get(nil, model.ServicePort{Namespace: namespace, Service: name, Port: port})
		for n, e := range list {
			require.Equal(t, port, e.Address.Port())
			require.True(t, n == 0 || list[n-1].Address.Compare(e.Address) < 0, "sorted")
			out = append(out, e.Address.Addr())
		}
		return out
	}
	web := service("shop", "web", ports)
	slice := endpointSlice("web-1", web, addresses(0, endpoints)...)
	slice.Endpoints[7].Conditions = discoveryv1.EndpointConditions{
		Ready: new(false), Serving: new(true), Terminating: new(true),
	}
	store.EndpointSlices.Set(slice)
	small := service("shop", "small", 1)
	of := endpointSlice("small-1", small, addresses(0, 250)...)
	of.Labels[discoveryv1.LabelServiceName] = "small"
	store.EndpointSlices.Set(of)

	first := at("shop", "web", 1)
	require.Len(t, first, 65, "65,536 for 1,000 ports")
	require.Equal(t, first, at("shop", "web", ports), "all ports know the same")
	require.NotContains(t, first, netip.MustParseAddr("10.1.0.7"), "it drains")
	require.Len(t, at("shop", "small", 1), 250)
	require.True(t, in.LeftOut.Get(nil, cluster.Key{Namespace: "shop", Name: "web"}).TooMany)
	require.Zero(t, in.LeftOut.Get(nil, cluster.Key{Namespace: "shop", Name: "small"}))

	gone := slices.IndexFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.Addresses[0] == first[0].String()
	})
	less := slice.DeepCopy()
	less.Endpoints = slices.Delete(less.Endpoints, gone, gone+1)
	store.EndpointSlices.Set(less)
	now := at("shop", "web", 1)
	require.Len(t, now, 65)
	require.Subset(t, now, first[1:], "another one takes its place")

	for n := range 4 {
		name := fmt.Sprint("other-", n)
		of = endpointSlice(name, service("shop", name, ports), addresses(0, 64)...)
		of.Labels[discoveryv1.LabelServiceName] = name
		store.EndpointSlices.Set(of)
	}
	require.Len(t, at("shop", "other-3", 1), 32, "a fifth of 200,000, or a little less")
	require.Len(t, at("shop", "web", 1), 32)
	require.Len(t, at("shop", "small", 1), 250)
	store.Services.Delete(cluster.Key{Namespace: "shop", Name: "other-0"})
	store.Services.Delete(cluster.Key{Namespace: "shop", Name: "other-1"})
	require.Equal(t, now, at("shop", "web", 1))
	store.EndpointSlices.Set(endpointSlice("web-1", web, addresses(0, 60)...))
	require.Len(t, at("shop", "web", 1), 60)
}

func endpointSlice(name string, ports []discoveryv1.EndpointPort, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: "web",
		}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: ports,
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func addresses(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, fmt.Sprintf("10.1.%d.%d", n/250, n%250))
	}
	return out
}

// TestEveryFieldOfAnEndpointCounts: a field that is passed over would keep a change from the proxies.
func TestEveryFieldOfAnEndpointCounts(t *testing.T) {
	same := model.Endpoint{}
	require.True(t, SameEndpoints([]model.Endpoint{same}, []model.Endpoint{{}}))
	kind := reflect.TypeFor[model.Endpoint]()
	for n := range kind.NumField() {
		other := model.Endpoint{}
		switch f := reflect.ValueOf(&other).Elem().Field(n); v := f.Addr().Interface().(type) {
		case *string:
			*v = "x"
		case *bool:
			*v = true
		case *uint8:
			*v = 1
		case *[]string:
			*v = []string{"x"}
		case *netip.AddrPort:
			*v = netip.MustParseAddrPort("10.0.0.1:80")
		default:
			t.Fatalf("give %s another value", kind.Field(n).Name)
		}
		require.False(t, SameEndpoints([]model.Endpoint{same}, []model.Endpoint{other}), kind.Field(n).Name)
	}
}
