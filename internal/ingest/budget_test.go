// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestCostOfARoute: every expression and byte of an author counts, wherever it is, for each port that it is for.
func TestCostOfARoute(t *testing.T) {
	re, exact := model.StringMatch{Type: model.MatchRegex, Value: "a+"},
		model.StringMatch{Type: model.MatchExact, Value: "a"}
	rules := []model.Rule{
		{Match: path(model.MatchRegex, "/a+")},
		{Match: path(model.MatchPrefix, "/a")},
		{GRPC: true, Match: model.Match{GRPCType: model.MatchRegex, GRPCService: "a+", GRPCMethod: "b+"}},
		{Match: model.Match{Headers: []model.NamedMatch{{Name: "a", StringMatch: re}, {Name: "b", StringMatch: exact}, {
			Name: "c", StringMatch: re,
		}}}},
		{Match: model.Match{Query: []model.NamedMatch{{Name: "a", StringMatch: re}}}},
		{Filters: []model.Filter{{CORS: &model.CORS{
			AllowOrigins: []string{"*", "https://a", "https://*.a", "https://*.b"},
		}}}},
	}
	parents := []parent{
		{service: cluster.Key{Namespace: "owner", Name: "a"}, attachments: make([]model.Attachment, 2)},
		{service: cluster.Key{Namespace: "owner", Name: "b"}, attachments: make([]model.Attachment, 1)},
		{service: cluster.Key{Namespace: "owner", Name: "refused"}},
		{service: cluster.Key{Namespace: "another", Name: "a"}, attachments: make([]model.Attachment, 5)},
	}
	require.Equal(t, map[string]cost{
		"owner":   {rules: 18, expressions: 21, bytes: 18*512 + 156},
		"another": {rules: 30, expressions: 35, bytes: 30*512 + 260},
	}, costsOf(&Route{Rules: rules, parents: parents}))

	// Backends elsewhere than the waypoint's namespace are counted once, whoever's they are.
	web, own := model.ServicePort{Namespace: "owner", Service: "a", Port: 80},
		model.ServicePort{Namespace: "consumer", Service: "b", Port: 80}
	leading := []model.Rule{
		{Backends: []model.Backend{{Port: web}, {Port: own}}},
		{Backends: []model.Backend{{Port: own}, {Port: own, Invalid: true}}, Filters: []model.Filter{
			{Mirror: &model.Mirror{Backend: model.Backend{Port: model.ServicePort{Namespace: "third", Service: "c", Port: 80}}}},
		}},
	}
	require.Equal(t, 2, costsOf(&Route{Rules: leading, parents: parents})["owner"].backends)
	require.Equal(t, 3, costsOf(&Route{Rules: leading, parents: parents})["another"].backends)

	// Where sessions stay with a backend, there is the rule once more for each.
	split := []model.Rule{{SessionPersistence: &model.SessionPersistence{}, Backends: make([]model.Backend, 3)}}
	require.Equal(t, 4*5, costsOf(&Route{Rules: split, parents: parents})["another"].rules)
	split[0].SessionPersistence.Header = true
	require.Equal(t, 5, costsOf(&Route{Rules: split, parents: parents})["another"].rules)
}

// TestRefusedRoutesCostLittle: also where a Service has many ports and all routes are for all of them.
func TestRefusedRoutesCostLittle(t *testing.T) {
	const ports, routes, fit = 200, 100, 2
	g := memo.New()
	store := cluster.NewStore(g)
	in := New(g, store, func(model.Rule) (bool, error) { return false, nil })
	store.Meshes.Set(&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}})
	store.Namespaces.Set(&corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled}},
	})
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	svc.Spec.ClusterIPs = []string{"10.96.0.1"}
	for n := range ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", n), Port: int32(1 + n)})
	}
	store.Services.Set(svc)
	accepted := 0
	for n := range routes {
		r := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("r%02d", n)}}
		group, kind := gwv1.Group(""), gwv1.Kind("Service")
		r.Spec.ParentRefs = []gwv1.ParentReference{{Group: &group, Kind: &kind, Name: "web"}}
		r.Spec.Rules = []gwv1.HTTPRouteRule{{Matches: make([]gwv1.HTTPRouteMatch, 128)}}
		store.HTTPRoutes.Set(r)
		ref := model.ObjectRef{Kind: KindHTTPRoute, Namespace: r.Namespace, Name: r.Name}
		in.Report.Watch(ref, func(report *Report) {
			if c := meta.FindStatusCondition(report.Parents[0].Conditions, string(
				gwv1.RouteConditionAccepted)); c.Reason != v1alpha1.RouteReasonOverBudget {
				require.Equal(t, string(gwv1.RouteReasonAccepted), c.Reason)
				accepted++
			}
		})
	}
	g.Flush()
	require.Equal(t, fit, accepted)
	require.Less(t, g.Reads, uint64(ports*routes/2))
}

// TestEqualPart: all together have no more than there is, nothing of it is left over while somebody wants it, and
// nobody gets less for what another one asks for beyond an equal part.
func TestEqualPart(t *testing.T) {
	require.Equal(t, math.MaxInt, equalPart(nil, 10))
	require.Equal(t, math.MaxInt, equalPart([]int{3, 7}, 10))
	require.Equal(t, 7, equalPart([]int{8, 3}, 10))
	require.Equal(t, 5, equalPart([]int{6, 7}, 10))
	require.Equal(t, 5, equalPart([]int{6, 1000}, 10))
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		asked := make([]int, 1+r.IntN(20))
		all := 0
		for n := range asked {
			asked[n] = r.IntN(50)
			all += asked[n]
		}
		const most = 200
		part := equalPart(slices.Clone(asked), most)
		had := 0
		for _, a := range asked {
			had += min(a, part)
		}
		require.LessOrEqual(t, had, most)
		require.Greater(t, had+len(asked), min(all, most), "but for what can't be divided")
	}
}
