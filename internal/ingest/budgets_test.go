// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestBudgetsWhileRoutesComeAndGo: nothing costs more than it may, and what is refused depends on the routes that there
// are and on nothing that was before.
func TestBudgetsWhileRoutesComeAndGo(t *testing.T) {
	consumer, consumers, author := mostOfConsumer, mostOfConsumers, mostOfAuthor
	t.Cleanup(func() { mostOfConsumer, mostOfConsumers, mostOfAuthor = consumer, consumers, author })
	mostOfConsumer, mostOfConsumers = cost{rules: 6, expressions: 4, bytes: 1 << 20, backends: 2},
		cost{rules: 14, expressions: 9, bytes: 1 << 20, backends: 5}
	mostOfAuthor.bytes = 8 << 10
	namespaces := []string{"a", "b", "c", "d", "e"}
	world := func() (*memo.Graph, *cluster.Store, *Ingest) {
		g := memo.New()
		store := cluster.NewStore(g)
		store.Meshes.Set(&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}})
		for n, ns := range namespaces {
			store.Namespaces.Set(&corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{names.LabelMesh: names.MeshEnabled}},
			})
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}
			svc.Spec.ClusterIPs, svc.Spec.Ports = []string{fmt.Sprint("10.96.0.", n)}, []corev1.ServicePort{{Port: 80}}
			store.Services.Set(svc)
		}
		return g, store, New(g, store, func(model.Rule) (bool, error) { return false, nil })
	}
	ofAuthors, cut := false, false
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 3))
		g, store, in := world()
		present := map[model.ObjectRef]*gwv1.HTTPRoute{}
		for step := range 120 {
			route := randomRoute(r, namespaces)
			ref := model.ObjectRef{Kind: KindHTTPRoute, Namespace: route.Namespace, Name: route.Name}
			if _, known := present[ref]; known && r.IntN(3) == 0 {
				delete(present, ref)
				in.Report.Unwatch(ref)
				store.HTTPRoutes.Delete(cluster.Key{Namespace: ref.Namespace, Name: ref.Name})
			} else {
				route.Generation = int64(step)
				present[ref] = route
				store.HTTPRoutes.Set(route)
				in.Report.Watch(ref, func(*Report) {})
			}
			if g.Flush(); step%5 > 0 {
				continue
			}
			all, from, scratch := world()
			for ref, route := range present {
				from.HTTPRoutes.Set(route)
				scratch.Report.Watch(ref, func(*Report) {})
			}
			all.Flush()
			keptToBudgets(t, in, scratch, present, namespaces)
			for ref := range present {
				ofAuthors = ofAuthors || len(in.overAuthor.Get(nil, ref.Namespace)) > 0
				cut = cut || in.share.Get(nil, ref.Namespace) != mostOfConsumer
			}
		}
	}
	require.True(t, ofAuthors && cut, "or nothing was tried")
}

// keptToBudgets compares what is refused with that of an Ingest which was given all at once, and adds up the rest.
func keptToBudgets(
	t *testing.T, in, scratch *Ingest, present map[model.ObjectRef]*gwv1.HTTPRoute, namespaces []string,
) {
	byAuthor, byConsumer, byOwner := map[string]cost{}, map[consumer]cost{}, map[string]cost{}
	for ref := range present {
		bill := in.billOf.Get(nil, ref)
		for _, owner := range namespaces {
			why, over := in.over(nil, ref, owner)
			whyScratch, overScratch := scratch.over(nil, ref, owner)
			require.Equal(t, overScratch, over)
			require.Equal(t, whyScratch, why)
			if over {
				continue
			}
			of := bill.of[owner]
			byAuthor[ref.Namespace] = byAuthor[ref.Namespace].plus(of)
			if owner != ref.Namespace {
				k := consumer{ref.Namespace, owner}
				byConsumer[k], byOwner[owner] = byConsumer[k].plus(of), byOwner[owner].plus(of)
			}
		}
	}
	for _, c := range byAuthor {
		require.True(t, c.within(mostOfAuthor), c)
	}
	for _, c := range byConsumer {
		require.True(t, c.within(mostOfConsumer), c)
	}
	for _, c := range byOwner {
		require.True(t, c.within(mostOfConsumers), c)
	}
}

// randomRoute is one of a few, for Services of up to two namespaces.
func randomRoute(r *rand.Rand, namespaces []string) *gwv1.HTTPRoute {
	out := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespaces[r.IntN(len(namespaces))], Name: fmt.Sprint("r", r.IntN(5)),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(r.IntN(4)), 0)),
	}}
	group, kind := gwv1.Group(""), gwv1.Kind("Service")
	for range 1 + r.IntN(2) {
		owner := gwv1.Namespace(namespaces[r.IntN(len(namespaces))])
		out.Spec.ParentRefs = append(out.Spec.ParentRefs, gwv1.ParentReference{
			Group: &group, Kind: &kind, Namespace: &owner,
			Name: "web",
		})
	}
	rule := gwv1.HTTPRouteRule{}
	for range 1 + r.IntN(3) {
		match := gwv1.HTTPRouteMatch{}
		if r.IntN(2) == 0 {
			match.Headers = []gwv1.HTTPHeaderMatch{{Name: "h", Type: new(gwv1.HeaderMatchRegularExpression), Value: "a+"}}
		}
		rule.Matches = append(rule.Matches, match)
	}
	if r.IntN(3) == 0 { // its namespace's own, so elsewhere than what it is for
		ref := gwv1.HTTPBackendRef{}
		ref.Name, ref.Port = "web", new(int32(80))
		rule.BackendRefs = append(rule.BackendRefs, ref)
	}
	out.Spec.Rules = []gwv1.HTTPRouteRule{rule}
	return out
}
