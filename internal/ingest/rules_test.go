// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestWhatARuleDoesIsCheckedOnce: not for each of its matches, and yet for one that can be understood.
func TestWhatARuleDoesIsCheckedOnce(t *testing.T) {
	r := &gwv1.HTTPRoute{}
	r.Namespace, r.Name = "shop", "web"
	headers := &gwv1.HTTPHeaderFilter{Set: []gwv1.HTTPHeader{{Name: "a", Value: "b"}}}
	filters := []gwv1.HTTPRouteFilter{
		{Type: gwv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: headers},
		{Type: gwv1.HTTPRouteFilterURLRewrite, URLRewrite: &gwv1.HTTPURLRewriteFilter{}},
	}
	rule := gwv1.HTTPRouteRule{Filters: filters}
	rule.BackendRefs = []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{}, Filters: filters[:1]}}
	for n := range 4 {
		rule.Matches = append(rule.Matches, gwv1.HTTPRouteMatch{Path: &gwv1.HTTPPathMatch{Value: new(fmt.Sprint("/", n))}})
	}
	r.Spec.Rules = []gwv1.HTTPRouteRule{rule}

	g := memo.New()
	store := cluster.NewStore(g)
	store.HTTPRoutes.Set(r)
	var changes, rewrites []string
	in := New(g, store, func(r model.Rule) (bool, error) {
		path := r.Match.Path.Value
		for _, f := range r.Filters {
			if f.RequestHeaders != nil {
				changes = append(changes, path)
			}
			if f.Rewrite != nil {
				rewrites = append(rewrites, path)
			}
		}
		for _, b := range r.Backends {
			for range b.Filters {
				changes = append(changes, path)
			}
		}
		if path == "/0" {
			return true, errors.New("not understood")
		}
		return false, nil
	})
	route := in.Route.Get(nil, model.ObjectRef{Kind: KindHTTPRoute, Namespace: "shop", Name: "web"})
	require.NotNil(t, route.invalid)
	require.Equal(t, []string{"/0", "/0", "/1", "/1"}, changes, "until a match is understood")
	require.Equal(t, []string{"/0", "/1", "/2", "/3"}, rewrites, "whether a path can be rewritten depends on the match")
}
