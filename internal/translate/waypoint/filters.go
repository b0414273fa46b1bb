// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// HTTP filters of a service port, by the names that routes configure them with.
const (
	filterCORS    = "envoy.filters.http.cors"
	filterSession = "envoy.filters.http.stateful_session"
	filterRouter  = "envoy.filters.http.router"
)

// httpFilters are the HTTP filters of every service port, in order. All are always there and do nothing until a route
// configures them, so that no route ever changes a listener.
//
//  1. CORS: answers preflight requests, before anything that would refuse them for lack of credentials.
//  2. Session persistence: picks the endpoint that an earlier answer named.
//  3. Router: applies the route's header changes, rewrites, timeouts, retries and mirrors, and picks the backend. It takes
//     no x-envoy-* headers from outside and adds none.
func httpFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		envoy.HTTPFilter(filterCORS, &corsv3.Cors{}),
		envoy.HTTPFilter(filterSession, &sessionv3.StatefulSession{}),
		envoy.HTTPFilter(filterRouter, &routerv3.Router{SuppressEnvoyHeaders: true}),
	}
}
