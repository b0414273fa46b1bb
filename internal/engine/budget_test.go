// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestABudgetIsGivenBack: what the oldest routes of a namespace no longer need, the younger ones have.
func TestABudgetIsGivenBack(t *testing.T) {
	h := newHarness(t)
	var old *gwv1.HTTPRoute
	for _, obj := range caseOf(t, "over-budget") {
		h.Set(obj)
		if r, ok := obj.(*gwv1.HTTPRoute); ok && r.Name == "old" {
			old = r
		}
	}
	h.Synced()
	h.process()
	require.NotNil(t, old)
	accepted := func() string {
		r := h.reports[model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "consumer-a", Name: "young"}]
		return meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.RouteConditionAccepted)).Reason
	}
	require.Equal(t, string(v1alpha1.RouteReasonOverBudget), accepted())
	less := old.DeepCopy()
	less.Generation++
	less.Spec.Rules[0].Matches = less.Spec.Rules[0].Matches[:1]
	h.Set(less)
	h.process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), accepted())
	h.Set(old)
	h.process()
	require.Equal(t, string(v1alpha1.RouteReasonOverBudget), accepted())
	h.Delete(old)
	h.process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), accepted())
}

// TestABudgetOfPoliciesIsGivenBack: a policy that is too much lets nobody in until older ones leave it room.
func TestABudgetOfPoliciesIsGivenBack(t *testing.T) {
	h := newHarness(t)
	h.given(guardedShop{pods: 1, workloads: 1}.objects())
	policy := func(name string, sources int, created time.Time) *v1alpha1.AuthorizationPolicy {
		p := twentyAccounts(0, 0)
		p.Name, p.CreationTimestamp, p.Generation = name, metav1.NewTime(created), int64(sources)
		p.Spec.Rules[0].Sources = nil
		for n := range sources {
			p.Spec.Rules[0].Sources = append(p.Spec.Rules[0].Sources, v1alpha1.AuthorizationSource{
				Type: v1alpha1.AuthorizationSourceTypeServiceAccount,
				ServiceAccount: &v1alpha1.AuthorizationServiceAccount{
					Name: fmt.Sprint(strings.Repeat("a", 40), n),
				},
			})
		}
		return p
	}
	start := time.Unix(1e9, 0)
	h.Delete(twentyAccounts(0, 0))
	h.Set(policy("old", 3000, start))
	h.Set(policy("young", 1000, start.Add(time.Hour)))
	h.process()
	reason := func(name string) string {
		r := h.reports[model.ObjectRef{Kind: "AuthorizationPolicy", Namespace: "shop", Name: name}]
		return meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.RouteConditionAccepted)).Reason
	}
	rules := func() (out []int) {
		for _, p := range h.ingest.PodGuard.Get(nil, types.NamespacedName{Namespace: "shop", Name: "pod-0"}).Network {
			out = append(out, len(p.Rules))
		}
		return out
	}
	require.Equal(t, string(gwv1.RouteReasonAccepted), reason("old"))
	require.Equal(t, v1alpha1.PolicyReasonOverBudget, reason("young"))
	require.Equal(t, []int{1, 0}, rules(), "the young one allows nothing")
	h.Set(policy("old", 1500, start))
	h.process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), reason("young"))
	require.Equal(t, []int{1, 1}, rules())
	h.Set(policy("old", 3000, start))
	h.process()
	require.Equal(t, v1alpha1.PolicyReasonOverBudget, reason("young"))
	h.Delete(policy("old", 3000, start))
	h.process()
	require.Equal(t, string(gwv1.RouteReasonAccepted), reason("young"))
}

// accepted tells whether there is a route and it is accepted; if not, then for its cost.
func (h *harness) accepted(t *testing.T, namespace, name string) bool {
	report := h.reports[model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: namespace, Name: name}]
	if report == nil {
		return false
	}
	reason := meta.FindStatusCondition(report.Parents[0].Conditions, string(gwv1.RouteConditionAccepted)).Reason
	if reason != string(gwv1.RouteReasonAccepted) {
		require.Equal(t, string(v1alpha1.RouteReasonOverBudget), reason)
	}
	return reason == string(gwv1.RouteReasonAccepted)
}

// budgetHarness has all of the case over-budget but its routes.
func budgetHarness(t *testing.T) *harness {
	h := newHarness(t)
	for _, obj := range caseOf(t, "over-budget") {
		if _, ok := obj.(*gwv1.HTTPRoute); !ok {
			h.Set(obj)
		}
	}
	h.Synced()
	return h
}

// TestLargeRoutes: what a route says is made for each match of a rule and for each port, so one that is small itself
// could take all the memory that the operator and a waypoint have.
func TestLargeRoutes(t *testing.T) {
	for author, most := range map[string]int{"owner": 63, "consumer-a": 31} {
		t.Run(author, func(t *testing.T) {
			h := budgetHarness(t)
			h.Set(largeRoute(author, "few", 1))
			h.Set(largeRoute(author, "many", most+1))
			h.process()
			require.True(t, h.accepted(t, author, "few"))
			require.False(t, h.accepted(t, author, "many"))
		})
	}
}

// TestRoutesOfANamespaceInAll: many large routes of one namespace take no more of the operator than a few, whosever
// Services they are for.
func TestRoutesOfANamespaceInAll(t *testing.T) {
	const scope xds.Scope = "waypoint/owner/fairway-waypoint"
	h := budgetHarness(t)
	set := func(name string, day, matches int) *gwv1.HTTPRoute {
		r := largeRoute("owner", name, matches)
		r.CreationTimestamp = metav1.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
		h.Set(r)
		return r
	}
	const fit = 5 // of 6 MiB for the two ports
	for n := range fit + 2 {
		set(fmt.Sprint("r", n), 1+n, 12)
	}
	set("small", 20, 1)
	h.Set(largeRoute("consumer-a", "another", 1))
	accepted := func() (out []bool) {
		h.process()
		for n := range fit + 2 {
			out = append(out, h.accepted(t, "owner", fmt.Sprint("r", n)))
		}
		require.True(t, h.accepted(t, "owner", "small"))
		require.True(t, h.accepted(t, "consumer-a", "another"))
		return out
	}
	require.Equal(t, []bool{true, true, true, true, true, false, false}, accepted())
	older := set("older", 1, 12)
	require.Equal(t, []bool{true, true, true, true, false, false, false}, accepted())
	h.Delete(older)
	require.Equal(t, []bool{true, true, true, true, true, false, false}, accepted())
	h.Delete(largeRoute("owner", "r1", 12))
	h.process()
	require.True(t, h.accepted(t, "owner", "r5"))
	require.False(t, h.accepted(t, "owner", "r6"))
	h.subscribe(scope)
	wire := 0
	for _, r := range h.cache.List(scope, xds.TypeRoute) {
		wire += len(r.Any().GetValue())
	}
	require.InDelta(t, 31<<20, wire, 1<<20)
}

// TestWhatARouteIsForDoesNotMatter: what a namespace may cost the operator is one budget for all Services.
func TestWhatARouteIsForDoesNotMatter(t *testing.T) {
	h := budgetHarness(t)
	own := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "consumer-a", Name: "web"}}
	own.Spec.ClusterIPs, own.Spec.Ports = []string{"10.96.3.77"}, []corev1.ServicePort{{Name: "http", Port: 80}}
	h.Set(&own)
	old := largeRoute("consumer-a", "own", 100)
	old.Spec.ParentRefs[0].Namespace = new(gwv1.Namespace("consumer-a"))
	old.CreationTimestamp = metav1.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	young := largeRoute("consumer-a", "foreign", 15)
	young.CreationTimestamp = metav1.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	h.Set(old)
	h.Set(young)
	h.process()
	require.True(t, h.accepted(t, "consumer-a", "own"))
	require.False(t, h.accepted(t, "consumer-a", "foreign"))
}

// TestManyConsumers: many namespaces take no more of a waypoint than a few, and nothing from a consumer that has
// little.
func TestManyConsumers(t *testing.T) {
	const consumers, routes = 5, 32
	h := budgetHarness(t)
	author := func(n int) string { return fmt.Sprint("greedy-", n) }
	name := func(n int) string { return fmt.Sprintf("r%02d", n) } // all are of one age, so names decide
	for c := range consumers {
		for n := range routes {
			h.Set(expressionRoute(author(c), name(n)))
		}
	}
	h.Set(expressionRoute("modest", "youngest"))
	served := func() (out []int) {
		h.process()
		require.True(t, h.accepted(t, "modest", "youngest"))
		for c := range consumers {
			fit := 0
			for fit < routes && h.accepted(t, author(c), name(fit)) {
				fit++
			}
			for n := fit; n < routes; n++ {
				require.False(t, h.accepted(t, author(c), name(n)), "the oldest have what there is")
			}
			out = append(out, fit)
		}
		return out
	}
	// There are 128 expressions in all, and each route has one for each of two ports.
	require.Equal(t, []int{12, 12, 12, 12, 12}, served())
	for n := 4; n < routes; n++ { // what one has no use for, the others have
		h.Delete(expressionRoute(author(0), name(n)))
	}
	require.Equal(t, []int{4, 14, 14, 14, 14}, served())
}

// expressionRoute has one regular expression, for the two ports of the Service.
func expressionRoute(namespace, name string) *gwv1.HTTPRoute {
	r := largeRoute(namespace, name, 0)
	header := gwv1.HTTPHeaderMatch{Name: "h", Type: new(gwv1.HeaderMatchRegularExpression), Value: name + "+"}
	r.Spec.Rules = []gwv1.HTTPRouteRule{{Matches: []gwv1.HTTPRouteMatch{{Headers: []gwv1.HTTPHeaderMatch{header}}}}}
	return r
}

// largeRoute has a rule with so many matches that sets 256 KiB of headers.
func largeRoute(namespace, name string, matches int) *gwv1.HTTPRoute {
	owner, port := gwv1.Namespace("owner"), gwv1.PortNumber(80)
	web := gwv1.BackendObjectReference{Name: "web", Namespace: &owner, Port: &port}
	rule := gwv1.HTTPRouteRule{}
	for m := range matches {
		path := fmt.Sprintf("/%s/%d", name, m)
		rule.Matches = append(rule.Matches, gwv1.HTTPRouteMatch{Path: &gwv1.HTTPPathMatch{Value: &path}})
	}
	for b := range 4 {
		change := &gwv1.HTTPHeaderFilter{}
		for n := range 16 {
			header := gwv1.HTTPHeader{Name: gwv1.HTTPHeaderName(fmt.Sprintf("x-%d-%d", b, n)), Value: strings.Repeat("x", 4<<10)}
			change.Set = append(change.Set, header)
		}
		rule.BackendRefs = append(rule.BackendRefs, gwv1.HTTPBackendRef{
			BackendRef: gwv1.BackendRef{BackendObjectReference: web},
			Filters:    []gwv1.HTTPRouteFilter{{Type: gwv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: change}},
		})
	}
	r := &gwv1.HTTPRoute{}
	r.Namespace, r.Name, r.Generation = namespace, name, 1
	group, kind := gwv1.Group(""), gwv1.Kind("Service")
	r.Spec.ParentRefs = []gwv1.ParentReference{{Group: &group, Kind: &kind, Name: "web", Namespace: &owner}}
	r.Spec.Rules = []gwv1.HTTPRouteRule{rule}
	return r
}

// TestPartialServicesAreTold: of Services with more endpoints than proxies are to know, and of those that are gone.
func TestPartialServicesAreTold(t *testing.T) {
	told := map[string]bool{}
	e := New(Options{Cache: xds.NewCache(), OnLeftOut: func(svc types.NamespacedName, out ingest.LeftOut) {
		told[svc.Name] = out.TooMany
	}})
	set := func(name string, ports, endpoints int) *corev1.Service {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		for n := range ports {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", n), Port: int32(1 + n)})
		}
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name},
		}}
		slice.Endpoints = make([]discoveryv1.Endpoint, endpoints)
		e.Set(svc)
		e.Set(slice)
		return svc
	}
	set("small", 3, 1000)
	large := set("large", ingest.MostEndpointsOfService/1000, 1200)
	e.Synced()
	e.process()
	require.Equal(t, map[string]bool{"small": false, "large": true}, told)
	e.Delete(large)
	e.process()
	require.Equal(t, map[string]bool{"small": false, "large": false}, told)
	require.False(t, e.ingest.LeftOut.Watched(types.NamespacedName{Namespace: "shop", Name: "large"}))
}

// TestMostConsumersOfAService: more than so many namespaces can't have routes for one, and say so; nobody else's
// change.
func TestMostConsumersOfAService(t *testing.T) {
	h := budgetHarness(t)
	author := func(n int) string { return fmt.Sprintf("tenant-%03d", n) } // all are of one age, so names decide
	route := func(n int) *gwv1.HTTPRoute {
		r := expressionRoute(author(n), "own")
		r.Spec.Rules = nil
		return r
	}
	const most = ingest.MostConsumersOfService
	for n := range most + 1 {
		h.Set(route(n))
	}
	h.process()
	require.True(t, h.accepted(t, author(most-1), "own"))
	require.False(t, h.accepted(t, author(most), "own"))
	require.Len(t, h.bindings["owner/web"].Callers, most)
	require.NotContains(t, h.bindings["owner/web"].Callers, author(most))
	another := route(0)
	another.Name = "second"
	h.Set(another)
	h.process()
	require.True(t, h.accepted(t, author(0), "second"), "namespaces count, not routes")
	h.Delete(another)
	h.Delete(route(0))
	h.process()
	require.True(t, h.accepted(t, author(most), "own"))
}

// TestMostPortsOfANamespace: of the Services that have waypoints. The youngest have none beyond it, and are closed;
// their waypoint goes on with the others.
func TestMostPortsOfANamespace(t *testing.T) {
	h := newHarness(t)
	for _, obj := range caseOf(t, "consumer-and-grpc") {
		h.Set(obj)
	}
	h.Synced()
	service := func(name string, age time.Duration, ports int) *corev1.Service {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "bookshop", Name: name, Labels: map[string]string{names.LabelUseWaypoint: "mine"},
			CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age)),
		}}
		svc.Spec.ClusterIP = "10.97.0.1"
		svc.Spec.ClusterIPs = []string{"10.97.0.1"}
		for n := range ports {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", n), Port: int32(1 + n)})
		}
		h.Set(svc)
		return svc
	}
	served := 0
	mine := types.NamespacedName{Namespace: "bookshop", Name: "mine"}
	h.ingest.Waypoint.Watch(mine, func(w *model.Waypoint) { served = len(w.Ports) })
	ports := func() int {
		h.process()
		return served
	}
	had := ports()
	const part = ingest.MostPortsOfNamespace / 4
	for n := range 3 {
		service(fmt.Sprint("old-", n), time.Hour, part)
	}
	require.Equal(t, had+3*part, ports())
	large := service("large", time.Minute, part+1)
	require.Equal(t, had+3*part, ports())
	b := h.bindings["bookshop/large"]
	require.True(t, b.OverBudget)
	require.Contains(t, b.Problem, "limited to 8192 ports")
	service("small", time.Second, 5)
	require.Equal(t, had+3*part+5, ports(), "a smaller one finds room")
	require.Empty(t, h.bindings["bookshop/small"].Problem)
	h.Delete(large)
	require.Equal(t, had+3*part+5, ports())
	require.Empty(t, h.bindings["bookshop/large"].Problem)
}
