// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// FilterBodiless is the HTTP filter that keeps answers whole, and does nothing else with them.
const FilterBodiless = "fairway.bodiless"

// HTTP filters, by the names that routes configure them with.
const (
	filterEcho    = "fairway.cors_echo"
	filterCORS    = "envoy.filters.http.cors"
	filterShown   = "fairway.shown_bodies"
	filterAuth    = "fairway.external_auth"
	filterAsk     = "fairway.external_authorization"
	filterBodies  = "fairway.bodies"
	filterLimits  = "fairway.limits"
	filterFaults  = "fairway.faults"
	filterAnswers = "fairway.answers"
	filterSession = "envoy.filters.http.stateful_session"
	filterRepeat  = "fairway.repeatable"
	filterRouter  = "envoy.filters.http.router"

	filterBeforeLimits = "fairway.before_limits"
	filterBehindLimits = "fairway.behind_limits"
)

// Filters are the HTTP filters that routes need, in order, for the end of a connection manager's. All are always there
// and do nothing until a route configures them, so that no route ever changes a listener. Most aren't even made for a
// request whose route doesn't. Envoy decides that when it has the route, which stays: no filter clears it.
//
//  1. Bodiless: has answers that can have no body get none, whoever made one behind it; see bodiless. Filters for
//     lengths, around those that ask authorization services, keep answers as long as they are said to be.
//  2. CORS: answers preflight requests, before anything that would refuse them for lack of credentials. What it can't
//     say by itself is added to its answer; see echo.
//  3. Shown bodies: holds what somebody is to be shown, until it is there; see showing.
//  4. External authorization: asks the service that a rule names. Whom it refuses takes nothing from the limits of
//     others, and a limit may count by what the service says of the caller. What tokens say is read after it, so no
//     route changes that.
//  5. Extensions: run the request through what a rule names, one filter for each; see extend. What tokens say, and whom
//     an AuthenticationPolicy has asked, comes after them, so no extension has a say in it.
//  6. Authentication: says which policies the request must satisfy, and verifies tokens as they have it. It comes
//     before all that costs something, or that holds anything back. The first of its filters also takes what only the
//     proxy says of callers out of trailers, those that extensions made, too.
//  7. External authorization as an AuthenticationPolicy has it: asks its service, of requests whose tokens are good.
//  8. Bodies, limits, faults and answers: what a TrafficPolicy asks for; see policyFilters. Before and behind limits is
//     what watches over the rate limit service; see watchLimits.
//  9. Session persistence: picks the endpoint that an earlier answer named.
//  10. External: says which host outside the cluster the request goes to, if to any; see outwards.
//  11. Repeatable requests: lets the router repeat a request that is safe if the endpoint breaks off without an answer.
//  12. Router: applies the route's header changes, rewrites, timeouts, retries and mirrors, and picks the backend. It
//     takes no x-envoy-* headers from outside and adds none.
func Filters() []*hcmv3.HttpFilter {
	out := []*hcmv3.HttpFilter{
		envoy.HTTPFilterWhereConfigured(FilterBodiless, &compositev3.Composite{}),
		envoy.HTTPFilter(filterEcho, &headermutationv3.HeaderMutation{}),
		envoy.HTTPFilterWhereConfigured(filterCORS, &corsv3.Cors{}),
		envoy.HTTPFilterWhereConfigured(filterShown, &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterAuth, &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterLengths(0), &compositev3.Composite{}),
	}
	for n := range model.MostExtensions {
		out = append(out, envoy.HTTPFilterWhereConfigured(filterExtension(n), &compositev3.Composite{}))
	}
	return append(out,
		envoy.HTTPFilter(names.FilterAuthentication, &headermutationv3.HeaderMutation{
			Mutations: withoutInTrailers(), MostSpecificHeaderMutationsWins: true,
		}),
		envoy.HTTPFilterByECDS(names.FilterForm, &httprbacv3.RBAC{}),
		envoy.HTTPFilterByECDS(names.FilterTokens, &jwtauthnv3.JwtAuthentication{}),
		envoy.HTTPFilterWhereConfigured(filterLengths(1), &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterAsk, &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterLengths(2), &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterBodies, &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterBeforeLimits, besideLimits("first")),
		envoy.HTTPFilterWhereConfigured(filterLimits, &compositev3.Composite{}),
		envoy.HTTPFilterWhereConfigured(filterBehindLimits, besideLimits("second")),
		envoy.HTTPFilterWhereConfigured(filterFaults, &compositev3.Composite{}),
		answers(),
		envoy.HTTPFilterWhereConfigured(filterSession, &sessionv3.StatefulSession{}),
		external(),
		repeatable(),
		envoy.HTTPFilter(filterRouter, &routerv3.Router{SuppressEnvoyHeaders: true}),
	)
}

// answers becomes what holds answers, as the composite filters do, but lets 101 pass: what follows an upgrade has no
// end. The answer says whether there is one, for callers offer whatever they like.
func answers() *hcmv3.HttpFilter {
	whole := envoy.Holds(envoy.Matching("status", &matcherv3.HttpResponseHeaderMatchInput{HeaderName: ":status"}),
		like("[^1].*"))
	return envoy.OnlyIf(filterAnswers, whole, "envoy.filters.http.composite", &compositev3.Composite{})
}

// like matches texts by a regular expression, whole.
func like(expression string) *xdsmatcherv3.StringMatcher {
	return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
		SafeRegex: &xdsmatcherv3.RegexMatcher{
			EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}},
			Regex:      expression,
		},
	}}
}

// safeMethods change nothing, so that they may be repeated without asking (RFC 9110, 9.2.1 and 9.2.2).
const safeMethods = "GET|HEAD|OPTIONS|TRACE"

// repeatable adds connections that break off to what the router's retry policy covers, for safe methods only. Without
// it an endpoint that goes away with the request on its way would cost such requests, too. A policy of its own per
// method is nothing that a route can have, but the router takes additions from this header, and callers can't
// send it.
func repeatable() *hcmv3.HttpFilter {
	safe := envoy.Holds(envoy.Matching("method", &matcherv3.HttpRequestHeaderMatchInput{HeaderName: ":method"}),
		like(safeMethods))
	mutation := &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationrulesv3.HeaderMutation{
			envoy.SetHeader("x-envoy-retry-on", retryBrokenOff, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
		},
	}}
	return envoy.OnlyIf(filterRepeat, safe, "envoy.filters.http.header_mutation", mutation)
}
