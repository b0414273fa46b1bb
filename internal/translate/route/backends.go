// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"math"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// clusterInvalid is a cluster that never exists: it takes the share of requests of backends that are not valid.
const clusterInvalid = "invalid"

// destinations sends the request to the rule's backends by weight. It is false if none of them can take any; otherwise
// what the backends' own filters do is in the action, or in the route's changes where there is one backend only.
func (b *routeBuilder) destinations(
	route *routev3.Route, a *routev3.RouteAction, r model.Rule, request, response *headerOps,
) (bool, error) {
	var live []model.Backend
	for _, backend := range r.Backends {
		if backend.Weight > 0 {
			live = append(live, backend)
		}
	}
	if !slices.ContainsFunc(live, func(b model.Backend) bool { return !b.Invalid }) {
		return false, nil
	}
	if len(live) == 1 {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: clusterTo(live[0])}
		config, err := b.backendFilters(r, live[0])
		if err != nil {
			return false, err
		}
		route.TypedPerFilterConfig = merge(route.TypedPerFilterConfig, config)
		err = backendHeaders(live[0], request, response)
		nameHost(live[0], request)
		return true, err
	}
	weighted := &routev3.WeightedCluster{}
	for i, weight := range weights(live) {
		w, err := clusterWeight(live[i], weight, request.host)
		if err != nil {
			return false, err
		}
		if w.TypedPerFilterConfig, err = b.backendFilters(r, live[i]); err != nil {
			return false, err
		}
		weighted.Clusters = append(weighted.Clusters, w)
	}
	request.host = "" // each backend has it: to Envoy, the route's would go before a backend's own
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
	a.ClusterNotFoundResponseCode = routev3.RouteAction_INTERNAL_SERVER_ERROR
	if r.GRPC {
		a.ClusterNotFoundResponseCode = routev3.RouteAction_SERVICE_UNAVAILABLE
	}
	return true, nil
}

// backendFilters configures filters for what a rule sends to a backend. A rule's own session goes before the backend's.
func (b *routeBuilder) backendFilters(r model.Rule, to model.Backend) (map[string]*anypb.Any, error) {
	guards := guardsOf(to.Guards, b.guards, r.ExternalAuth())
	if to.External != nil {
		return merge(outwards(*to.External), guards), nil
	}
	if r.SessionPersistence != nil || to.Invalid {
		return guards, nil
	}
	session, err := sessionWith(to.Port, to.Session)
	return merge(session, guards), err
}

// weights are those of the backends, scaled down if their sum is more than Envoy can count.
func weights(backends []model.Backend) []uint32 {
	var sum uint64
	for _, b := range backends {
		sum += uint64(b.Weight)
	}
	divisor := sum/math.MaxUint32 + 1
	out := make([]uint32, 0, len(backends))
	for _, b := range backends {
		out = append(out, uint32(uint64(b.Weight)/divisor)) //nolint:gosec // a quotient is no larger than the weight
	}
	return out
}

// clusterWeight is a backend among several; host is what the rule's filters make of the request's.
func clusterWeight(b model.Backend, weight uint32, host string) (*routev3.WeightedCluster_ClusterWeight, error) {
	w := &routev3.WeightedCluster_ClusterWeight{Name: clusterTo(b), Weight: envoy.UInt32(weight)}
	if b.Invalid {
		w.Name = clusterInvalid
		return w, nil
	}
	request, response := headerOps{host: host}, headerOps{}
	if err := backendHeaders(b, &request, &response); err != nil {
		return nil, err
	}
	nameHost(b, &request)
	w.RequestHeadersToAdd, w.RequestHeadersToRemove = request.add, request.remove
	w.ResponseHeadersToAdd, w.ResponseHeadersToRemove = response.add, response.remove
	if request.host != "" {
		w.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: request.host}
	}
	return w, nil
}

// backendHeaders adds what a backend's filters do. They run after those of the rule.
func backendHeaders(b model.Backend, request, response *headerOps) error {
	for _, f := range b.Filters {
		var err error
		switch {
		case f.RequestHeaders != nil:
			err = request.changeRequest(*f.RequestHeaders)
		case f.ResponseHeaders != nil:
			err = response.change(*f.ResponseHeaders)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mirror sends a copy to another backend; one that is not valid gets none. The copy's host is the request's own.
func mirror(a *routev3.RouteAction, m model.Mirror) {
	if m.Backend.Invalid {
		return
	}
	p := &routev3.RouteAction_RequestMirrorPolicy{
		Cluster:                       clusterOf(m.Backend.Port, m.Backend.TLS),
		DisableShadowHostSuffixAppend: true,
	}
	if m.Denominator != 0 && m.Numerator < m.Denominator {
		const million = 1_000_000
		share := uint64(m.Numerator) * million / uint64(m.Denominator)
		p.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
			Numerator:   uint32(share), //nolint:gosec // less than a million, for the fraction is less than one
			Denominator: typev3.FractionalPercent_MILLION,
		}}
	}
	a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, p)
}
