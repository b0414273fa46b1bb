// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestAPolicyThatIsMadeAgainIsAnotherOne: what a policy made is of another version once the policy was taken away and
// made again, or changed and changed back, though the content is the same. A proxy whose replica has yet to hear of
// that must not count as one that has it.
func TestAPolicyThatIsMadeAgainIsAnotherOne(t *testing.T) {
	h := newHarness(t)
	for _, obj := range caseOf(t, "split") {
		h.Set(obj)
	}
	h.Set(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "web-0"},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "web"},
	})
	network := func(uid types.UID, generation int64) {
		p := twentyAccounts(0, 0)
		p.Namespace, p.UID, p.Generation = "bookshop", uid, generation
		h.Set(p)
	}
	requests := func(uid types.UID, generation int64) {
		h.Set(&v1alpha1.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "get-only", UID: uid, Generation: generation},
			Spec: v1alpha1.AuthorizationPolicySpec{
				TargetRefs:       []v1alpha1.AuthorizationTarget{{Kind: "Service", Name: "reviews"}},
				EnforcementLevel: v1alpha1.EnforcementLevelApplication, Action: v1alpha1.ActionAllow,
				Rules: []v1alpha1.AuthorizationRule{{ApplicationAttributes: &v1alpha1.AuthorizationApplicationAttributes{
					Methods: []string{"GET"},
				}}},
			},
		})
	}
	tokens := func(uid types.UID, generation int64) {
		p := tokensOf(generation, "https://issuer.example")
		p.UID = uid
		h.Set(p)
	}
	network("a", 1)
	requests("a", 1)
	tokens("a", 1)
	h.Synced()
	get := func(k xds.Key) *xds.Resource {
		h.Interest(xds.Interest{Key: k, Wanted: true})
		h.process()
		r, _ := h.cache.Get(k)
		require.NotNil(t, r)
		return r
	}
	guard := catalogue.NodeScope("n1").Key(xds.TypeExtension, names.PodAuthorization("bookshop", "web-0"))
	table := sharedScope.Key(xds.TypeRoute, "service/bookshop/reviews/80")
	filter := sharedScope.Key(xds.TypeExtension, names.FilterTokens)
	for k, change := range map[xds.Key]func(types.UID, int64){guard: network, table: requests, filter: tokens} {
		first := get(k)
		for _, edition := range []struct {
			uid        types.UID
			generation int64
		}{{"a", 3}, {"b", 1}} {
			change(edition.uid, edition.generation)
			second := get(k)
			require.Equal(t, first.Any().GetValue(), second.Any().GetValue(), k.Name)
			require.NotEqual(t, first.Version(), second.Version(), k.Name)
		}
		change("a", 1)
		require.Equal(t, first.Version(), get(k).Version(), k.Name)
	}
}
