// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

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
	case model.BalanceLeastRequest: // as all clusters do
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

// limits of what a policy lets a proxy have under way, or else the ceiling, which none of them is above. To Envoy, a
// budget of retries is in place of their number.
func limits(l model.SendingLimits, retries *model.RetryBudget) *clusterv3.CircuitBreakers {
	bound := func(most *uint32) *wrapperspb.UInt32Value {
		if most == nil {
			return envoy.UInt32(ceiling)
		}
		return envoy.UInt32(min(*most, ceiling))
	}
	out := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     bound(l.Connections),
		MaxPendingRequests: bound(l.Pending),
		MaxRequests:        bound(l.Requests),
		MaxRetries:         bound(l.Retries),
	}
	if retries != nil {
		out.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: float64(min(retries.Percent, 100))},
			BudgetInterval:      envoy.Duration(retries.Interval),
			MinRetryConcurrency: bound(&retries.Least),
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{out}}
}

// outliers has a proxy leave out endpoints for what a policy counts, and for nothing else that Envoy can count.
func outliers(o *model.Outliers) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{
		MaxEjectionPercent:                 envoy.UInt32(min(o.MaxPercent, 100)),
		EnforcingConsecutive_5Xx:           envoy.UInt32(0),
		EnforcingConsecutiveGatewayFailure: envoy.UInt32(0),
		EnforcingSuccessRate:               envoy.UInt32(0),
	}
	if o.Consecutive5xx > 0 {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = envoy.UInt32(o.Consecutive5xx), envoy.UInt32(100)
	}
	if o.ConsecutiveGatewayErrors > 0 {
		out.ConsecutiveGatewayFailure = envoy.UInt32(o.ConsecutiveGatewayErrors)
		out.EnforcingConsecutiveGatewayFailure = envoy.UInt32(100)
	}
	if o.Interval > 0 {
		out.Interval = envoy.Duration(o.Interval)
	}
	if o.EjectionTime > 0 {
		out.BaseEjectionTime = envoy.Duration(o.EjectionTime)
	}
	return out
}
