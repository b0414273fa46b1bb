// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// routedShop is a namespace with routes for its Services, each of which leads to one of the two Services v1 and v2. The
// waypoint is the automatic one.
type routedShop struct{ routes, perService int }

func (s routedShop) services() int { return (s.routes + s.perService - 1) / s.perService }

func (s routedShop) objects() []client.Object {
	out := guardedShop{}.objects()
	for _, o := range out {
		if gateway, ok := o.(*gwv1.Gateway); ok {
			gateway.Name = names.AutomaticWaypoint
		}
	}
	for n, name := range []string{"v1", "v2"} {
		out = append(out, guardedShop{workloads: 1}.pod(n, n), s.service(name, n))
		slice := guardedShop{workloads: 1}.slice(0, n)
		slice.Name, slice.Labels = name, map[string]string{discoveryv1.LabelServiceName: name}
		out = append(out, slice)
	}
	for n := range s.services() {
		out = append(out, s.service(fmt.Sprint("svc-", n), n+2))
	}
	for n := range s.routes {
		out = append(out, s.route(n, "v1"))
	}
	return out
}

func (s routedShop) service(name string, n int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{fmt.Sprintf("10.96.%d.%d", n/200, n%200+1)},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: new("http")}},
		},
	}
}

// route of a number leads to a Service, by what it is asked for under a path of its own.
func (s routedShop) route(n int, to string) *gwv1.HTTPRoute {
	backend := gwv1.HTTPBackendRef{BackendRef: gwv1.BackendRef{BackendObjectReference: gwv1.BackendObjectReference{
		Name: gwv1.ObjectName(to), Port: new(gwv1.PortNumber(80)),
	}}}
	return &gwv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("route-", n), UID: types.UID(fmt.Sprint(n))},
		Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")),
				Name: gwv1.ObjectName(fmt.Sprint("svc-", n/s.perService)), Port: new(gwv1.PortNumber(80)),
			}}},
			Rules: []gwv1.HTTPRouteRule{{
				Matches: []gwv1.HTTPRouteMatch{{
					Path: &gwv1.HTTPPathMatch{Type: new(gwv1.PathMatchPathPrefix), Value: new(fmt.Sprint("/route-", n))},
				}},
				BackendRefs: []gwv1.HTTPBackendRef{backend},
			}},
		},
	}
}

// served has an engine with all of it, and a waypoint and a node that want everything.
func (s routedShop) served(t testing.TB) *harness {
	h := newHarness(t)
	h.given(s.objects())
	var addresses []string
	for n := range s.services() {
		addresses = append(addresses, dialled(s.service("", n+2))...)
	}
	h.subscribe(catalogue.WaypointScope(automaticInShop))
	h.subscribe(catalogue.NodeScope("n1"), addresses...)
	h.told = nil
	return h
}

var automaticInShop = types.NamespacedName{Namespace: "shop", Name: names.AutomaticWaypoint}

// edit changes the backend of one route, again and again.
func (s routedShop) edit(h *harness, n int) {
	r := s.route(s.routes/2, []string{"v1", "v2"}[n%2])
	r.Generation = int64(n)
	h.Set(r)
	h.process()
	h.told = h.told[:0]
}

// TestAnEditCostsTheSameAmongManyRoutes: what an edit has read anew hardly depends on how many routes there are.
func TestAnEditCostsTheSameAmongManyRoutes(t *testing.T) {
	const few, many = 100, 3000
	cost := func(routes int) (reads uint64) {
		s := routedShop{routes, 10}
		h := s.served(t)
		other := s.route(0, "v2") // so that the edits lead nowhere new
		other.Generation = 1
		h.Set(other)
		s.edit(h, 1)
		for n := range 4 {
			before := h.graph.Reads
			s.edit(h, n)
			reads = max(reads, h.graph.Reads-before)
		}
		return reads
	}
	require.Less(t, cost(many), cost(few)+500, "nothing is read of more than a part of the Services")
}

// tablesAreWhole holds the tables that are served, which are put together of what was made of rules before, against
// what is made of all rules at once.
func (h *harness) tablesAreWhole(t testing.TB) {
	t.Helper()
	for _, scope := range h.cache.Scopes() {
		for _, r := range h.cache.List(scope, xds.TypeRoute) {
			at, ok := parseTable(r.Name())
			if !ok {
				continue
			}
			want, bad := route.Configuration(h.ingest.Settings.Get(nil, struct{}{}).TrustDomain,
				h.resources.table(nil, r.Name(), at))
			require.Empty(t, bad)
			got := as[*routev3.RouteConfiguration](t, r)
			require.True(t, proto.Equal(want, got), "%s\nwant %v\ngot %v", r.Name(), want, got)
		}
	}
}

// BenchmarkRoutes is what the engine uses for one change, by how many routes there are and how they are spread.
func BenchmarkRoutes(b *testing.B) {
	for _, routes := range []int{10, 1000, 3000, 10_000} {
		for _, perService := range []int{10, routes} {
			s := routedShop{routes, perService}
			b.Run(fmt.Sprintf("routes=%d/services=%d", routes, s.services()), func(b *testing.B) {
				h := s.served(b)
				require.NotEmpty(b, h.cache.List(catalogue.WaypointScope(automaticInShop), xds.TypeRoute))
				n := 0
				run := func(what string, change func()) {
					b.Run(what, func(b *testing.B) {
						b.ReportAllocs()
						before := cpu(b)
						for b.Loop() {
							n++
							change()
						}
						b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
					})
				}
				run("edit", func() { s.edit(h, n) })
				run("create and delete", func() {
					r := s.route(s.routes/2, "v2")
					r.Name, r.Spec.Rules[0].Matches[0].Path.Value = "new", new("/new")
					h.Set(r)
					h.process()
					h.Delete(r)
					h.process()
					h.told = h.told[:0]
				})
				run("endpoint moves", func() {
					slice := guardedShop{workloads: 1}.slice(0, n%2)
					slice.Name, slice.Labels = "v1", map[string]string{discoveryv1.LabelServiceName: "v1"}
					h.Set(slice)
					h.process()
				})
			})
		}
	}
}

// cpu is what the process has used of it: on a machine that does other things besides, time says little.
func cpu(b *testing.B) time.Duration {
	var used unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
