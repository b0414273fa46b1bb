// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	actionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// HTTP filters of a service port, by the names that routes configure them with.
const (
	filterGone    = "fairway.gone"
	filterEcho    = "fairway.cors_echo"
	filterCORS    = "envoy.filters.http.cors"
	filterSession = "envoy.filters.http.stateful_session"
	filterRepeat  = "fairway.repeatable"
	filterRouter  = "envoy.filters.http.router"
)

// httpFilters are the HTTP filters of every service port, in order. All are always there and do nothing until a route
// configures them, so that no route ever changes a listener.
//
//  1. End of the connection with an answer that says that its port is gone; see gone.go.
//  2. CORS: answers preflight requests, before anything that would refuse them for lack of credentials. What it can't say
//     by itself is added to its answer; see echo.
//  3. Session persistence: picks the endpoint that an earlier answer named.
//  4. Repeatable requests: lets the router repeat a request that is safe if the endpoint breaks off without an answer.
//  5. Router: applies the route's header changes, rewrites, timeouts, retries and mirrors, and picks the backend. It takes
//     no x-envoy-* headers from outside and adds none.
func httpFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		endConnection(),
		envoy.HTTPFilter(filterEcho, &headermutationv3.HeaderMutation{}),
		envoy.HTTPFilter(filterCORS, &corsv3.Cors{}),
		envoy.HTTPFilter(filterSession, &sessionv3.StatefulSession{}),
		repeatable(),
		envoy.HTTPFilter(filterRouter, &routerv3.Router{SuppressEnvoyHeaders: true}),
	}
}

// safeMethods change nothing, so that they may be repeated without asking (RFC 9110, 9.2.1 and 9.2.2).
const safeMethods = "GET|HEAD|OPTIONS|TRACE"

// repeatable adds connections that break off to what the router's retry policy covers, for safe methods only. Without
// it an endpoint that goes away with the request on its way would cost such requests, too. A policy of its own per method is
// nothing that a route can have, but the router takes additions from this header, and callers can't
// send it.
func repeatable() *hcmv3.HttpFilter {
	safe := holds(matching("method", &matcherv3.HttpRequestHeaderMatchInput{HeaderName: ":method"}),
		&xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
			SafeRegex: &xdsmatcherv3.RegexMatcher{
				EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}},
				Regex:      safeMethods,
			},
		}})
	mutation := &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationrulesv3.HeaderMutation{
			setHeader("x-envoy-retry-on", retryBrokenOff, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
		},
	}}
	return onlyIf(filterRepeat, safe, "envoy.filters.http.header_mutation", mutation)
}

// setHeader changes a header; the value is a format.
func setHeader(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *mutationrulesv3.HeaderMutation {
	return &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
	}}}
}

// matching is an extension of Envoy's matching API, which has a type of its own for them.
func matching(name string, m proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: envoy.Any(m)}
}

// holds is a predicate about one input.
func holds(input *xdscorev3.TypedExtensionConfig, value *xdsmatcherv3.StringMatcher) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return &xdsmatcherv3.Matcher_MatcherList_Predicate{
		MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
			SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
				Input:   input,
				Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: value},
			},
		},
	}
}

// onlyIf skips a filter where a predicate doesn't hold.
func onlyIf(
	name string, p *xdsmatcherv3.Matcher_MatcherList_Predicate, extension string, config proto.Message,
) *hcmv3.HttpFilter {
	not := &xdsmatcherv3.Matcher_MatcherList_Predicate{
		MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: p},
	}
	skip := &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: matching("skip", &actionv3.SkipFilter{}),
	}}
	return envoy.HTTPFilter(name, &matchingv3.ExtensionWithMatcher{
		ExtensionConfig: envoy.Extension(extension, config),
		XdsMatcher: &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherList_{
			MatcherList: &xdsmatcherv3.Matcher_MatcherList{Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: not, OnMatch: skip,
			}}},
		}},
	})
}
