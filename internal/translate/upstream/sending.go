// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// balance has a cluster choose endpoints as the policy of its port says, or else its Service.
func balance(c *clusterv3.Cluster, u model.Upstream) {
	b := u.Balancing
	if b == nil && u.ClientIP {
		b = &model.Balancing{Type: model.BalanceMaglev}
	}
	if b == nil {
		return
	}
	switch b.Type {
	case model.BalanceRoundRobin:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case model.BalanceRandom:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case model.BalanceRingHash:
		c.LoadBalancingPolicy = envoy.RingHash(hashed(*b))
	case model.BalanceMaglev:
		c.LoadBalancingPolicy = envoy.Maglev(hashed(*b))
	}
}

// hashed is what is hashed of a request; of a connection it can only be the address that it comes from.
func hashed(b model.Balancing) *routev3.RouteAction_HashPolicy {
	switch {
	case b.Cookie != "":
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: b.Cookie, Path: "/"}
		if b.CookieTTL != nil {
			cookie.Ttl = envoy.Duration(*b.CookieTTL)
		}
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}}
	case b.Header != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: b.Header},
		}}
	}
	// The address that the mTLS listener saw: what Envoy takes for the client's is up to x-forwarded-for.
	return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
		FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: names.FilterStateSourceIP},
	}}
}
