// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The agent keeps the keys of tokens (package keys of the agent), and the proxy fetches them for it: it has the
// identity, the endpoints and the guards by which servers of keys are reached. Both are static, on Unix sockets that
// nobody but the two can open.

// KeyClusters lead to the agent's keys, on a socket.
func KeyClusters(socket string) []*clusterv3.Cluster {
	return []*clusterv3.Cluster{{
		Name: names.ClusterKeys, ConnectTimeout: envoy.Duration(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: names.ClusterKeys,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{
				LbEndpoints: []*endpointv3.LbEndpoint{envoy.LbEndpoint(envoy.PipeAddress(socket), nil)},
			}},
		},
	}}
}

// KeyListeners are where the agent asks for keys, on a socket. It says which cluster leads to their server; one that
// the operator has not sent leads nowhere.
func KeyListeners(socket string) []*listenerv3.Listener {
	const each = time.Minute // the longest that a policy may wait for keys
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: names.ListenerKeys, CodecType: hcmv3.HttpConnectionManager_HTTP1,
		HttpFilters: []*hcmv3.HttpFilter{
			envoy.HTTPFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
		},
		GenerateRequestId: envoy.Bool(false), SkipXffAppend: true,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: names.ListenerKeys, RequestHeadersToRemove: []string{names.HeaderCluster},
			VirtualHosts: []*routev3.VirtualHost{{
				Name: names.ListenerKeys, Domains: []string{"*"},
				Routes: []*routev3.Route{{
					Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{}},
					Action: &routev3.Route_Route{Route: &routev3.RouteAction{
						ClusterSpecifier: &routev3.RouteAction_ClusterHeader{ClusterHeader: names.HeaderCluster},
						Timeout:          envoy.Duration(each),
					}},
				}},
			}},
		}},
	}
	return []*listenerv3.Listener{{
		Name: names.ListenerKeys, Address: envoy.PipeAddress(socket),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{envoy.NetworkFilter(filterHTTPManager, m)}}},
	}}
}
