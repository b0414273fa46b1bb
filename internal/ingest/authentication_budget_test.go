// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestAuthenticationOfOthers: whoever has a route for a Service has its own policies at the Service's waypoint, within
// bounds, and takes nothing from the owner's or from others.
func TestAuthenticationOfOthers(t *testing.T) {
	optional := model.TokenProvider{Params: []string{"a", "b", "c"}}
	policies := map[cluster.Key]*model.Authentication{}
	var sets [][]cluster.Key
	add := func(namespace string, n int, of model.TokenProvider) {
		key := cluster.Key{Namespace: namespace, Name: fmt.Sprintf("p%03d", n)}
		policies[key] = &model.Authentication{Tokens: &model.Tokens{
			Optional: of.Params != nil, Providers: []model.TokenProvider{of, of, of, of, of, of, of, of},
		}}
		sets = append(sets, []cluster.Key{key})
	}
	large := model.TokenProvider{Keys: strings.Repeat("k", 16<<10)}
	for n := range 100 {
		add("owner", n, large)
		add("large", n, large)
		add("many", n, optional)
	}
	for n := range 5000 {
		add("many", 100+n, optional)
	}
	add("small", 0, large)
	for n := range 100 {
		add("remote", n, model.TokenProvider{Remote: &model.RemoteKeys{URI: "http://login.example/keys"}})
	}
	kept := map[string]int{}
	shared := affordable("owner", sets, func(k cluster.Key) *model.Authentication { return policies[k] })
	for _, set := range shared.sets {
		kept[set[0].Namespace]++
	}
	require.Equal(t, 100, kept["owner"])
	require.Equal(t, 1, kept["small"])
	require.Equal(t, mostOfOthers.bytes/(8*(16<<10)+9*512), kept["large"])
	require.Equal(t, mostOfOthers.bytes/(8*512+25*512), kept["many"])
	require.Equal(t, mostOfOthers.remote/8, kept["remote"])
	for _, set := range sets {
		_, over := shared.over[set[0]]
		require.NotEqual(t, over, slices.ContainsFunc(shared.sets, func(s []cluster.Key) bool { return s[0] == set[0] }),
			"%s is told, or let be", set[0])
	}
}

// TestNewPoliciesTakeNothingFromOldOnes: whatever they are called, and whichever old one they come with.
func TestNewPoliciesTakeNothingFromOldOnes(t *testing.T) {
	at := map[cluster.Key]time.Time{}
	key := func(name string, age int64) cluster.Key {
		k := cluster.Key{Namespace: "buyer", Name: name}
		at[k] = time.Unix(age, 0)
		return k
	}
	a, b, c, d := key("a", 3), key("b", 2), key("c", 1), key("d", 2)
	sets := sortedSets([][]cluster.Key{{a}, {b}, {a, c}, {c}, {d}, {c, d}})
	oldestFirst(sets, func(k cluster.Key) time.Time { return at[k] })
	require.Equal(t, [][]cluster.Key{{c}, {b}, {c, d}, {d}, {a}, {a, c}}, sets)

	large := &model.Authentication{Tokens: &model.Tokens{Providers: []model.TokenProvider{
		{Keys: strings.Repeat("k", mostOfOthers.bytes*2/3)},
	}}}
	shared := affordable("owner", sets, func(cluster.Key) *model.Authentication { return large })
	require.Equal(t, [][]cluster.Key{{c}}, shared.sets)
	require.Contains(t, shared.over, a)
}

// TestPoliciesThatOthersHaveNoRoomForSaySo: with the waypoint, what there is and what to do, and only those that don't
// fit; and they are in force again when there is room.
func TestPoliciesThatOthersHaveNoRoomForSaySo(t *testing.T) {
	w := newWorld()
	w.set(t, readManifests(t, "testdata/mesh.yaml")...)
	w.set(t, &gwv1.Gateway{
		TypeMeta:   metav1.TypeMeta{Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "fairway-waypoint"},
		Spec:       gwv1.GatewaySpec{GatewayClassName: "fairway-waypoint"},
	})
	service := func(ns, name string, n byte) *corev1.Service {
		address := netip.AddrFrom4([4]byte{10, 96, 1, n}).String()
		return &corev1.Service{
			TypeMeta: metav1.TypeMeta{Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec: corev1.ServiceSpec{
				ClusterIP: address, ClusterIPs: []string{address}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
			},
		}
	}
	w.set(t, service("shop", "web", 1), service("buyer", "login", 2))
	r := &gwv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{Kind: KindHTTPRoute},
		ObjectMeta: metav1.ObjectMeta{Namespace: "buyer", Name: "r", CreationTimestamp: metav1.Unix(1, 0)},
	}
	r.Spec.ParentRefs = []gwv1.ParentReference{{
		Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Namespace: new(gwv1.Namespace("shop")), Name: "web",
	}}
	providers := mostOfOthers.remote / 8
	for n := range 9 {
		name := fmt.Sprint("s", n)
		p := &v1alpha1.AuthenticationPolicy{
			TypeMeta: metav1.TypeMeta{Kind: cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil))},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "buyer", Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(int64(100-n), 0),
			},
			Spec: v1alpha1.AuthenticationPolicySpec{
				TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Service", Name: gwv1.ObjectName(name)}},
				JWT:        &v1alpha1.JWTAuthentication{},
			},
		}
		for m := range providers {
			p.Spec.JWT.Providers = append(p.Spec.JWT.Providers, v1alpha1.JWTProvider{
				Name: fmt.Sprint("p", m), Issuer: "me", JWKS: v1alpha1.JWKS{Remote: &v1alpha1.RemoteJWKS{
					URI: "http://login/keys",
					BackendRef: gwv1.BackendObjectReference{
						Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "login", Port: new(gwv1.PortNumber(80)),
					},
				}},
			})
		}
		w.set(t, service("buyer", name, byte(10+n)), p)
		r.Spec.Rules = append(r.Spec.Rules, gwv1.HTTPRouteRule{
			Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Value: new("/" + name)}}},
			BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{BackendObjectReference: gwv1.BackendObjectReference{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: gwv1.ObjectName(name),
				Port: new(gwv1.PortNumber(80)),
			}}}},
		})
	}
	w.set(t, r)
	w.flush()
	verdict := func(name string) *Verdict {
		report := w.in.Report.Get(nil, model.ObjectRef{
			Kind: cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil)), Namespace: "buyer", Name: name,
		})
		require.Len(t, report.Parents, 1)
		require.True(t, meta.IsStatusConditionTrue(report.Parents[0].Conditions, "Accepted"))
		return report.Parents[0].Unprogrammed
	}
	waypoint := cluster.Key{Namespace: "shop", Name: "fairway-waypoint"}
	for n := range 8 {
		require.Nil(t, verdict(fmt.Sprint("s", n+1)))
	}
	over := verdict("s0")
	require.NotNil(t, over)
	require.Equal(t, v1alpha1.PolicyReasonOverBudget, over.Reason)
	for _, part := range []string{waypoint.String(), "2097152 bytes", "64 providers", "8 more", "use fewer"} {
		require.Contains(t, over.Message, part)
	}
	require.Len(t, w.in.Authentications.Get(nil, waypoint).Policies, 8)

	told := 0
	w.in.Report.Watch(model.ObjectRef{
		Kind: cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil)), Namespace: "buyer", Name: "s0",
	}, func(*Report) { told++ })
	w.graph.Flush()
	r = r.DeepCopy()
	r.Generation++
	r.Spec.Rules = r.Spec.Rules[:8]
	w.set(t, r)
	w.graph.Flush()
	require.Equal(t, 2, told)
	require.Nil(t, verdict("s0"))
	require.Len(t, w.in.Authentications.Get(nil, waypoint).Policies, 8)
}
