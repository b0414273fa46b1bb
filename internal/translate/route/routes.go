// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// headerClientCert tells the application who calls (Envoy's format, `URI=` alone).
const (
	headerClientCert = "x-forwarded-client-cert"
	clientCert       = "URI=%FILTER_STATE(" + names.FilterStateSource + ":PLAIN)%"
)

// heldBody is how much of a request's body is kept, so that it can be sent again; a longer one is sent once.
const heldBody = 1 << 20

// Configuration says what happens to the requests to an attachment. The rules of the caller's own namespace come
// first and, where there are any, are all that counts for its callers; then the default rules; without rules, the
// Service itself. Where no rule matches, the answer is 404.
func Configuration(trustDomain string, t model.RouteTable) (*routev3.RouteConfiguration, []*RuleError) {
	out := Frame(t)
	host, errs := out.GetVirtualHosts()[0], []*RuleError(nil)
	Each(trustDomain, t, func(r *routev3.Route) { host.Routes = append(host.Routes, r) },
		func(caller string, r *model.Rule) {
			routes, bad := OfRule(trustDomain, t.Attachment, t.Guards, caller, *r)
			host.Routes, errs = append(host.Routes, routes...), append(errs, bad...)
		})
	return out, errs
}

// Frame is the configuration without its routes, which are those of its only virtual host.
func Frame(t model.RouteTable) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: nameOf(t.Port),
		// What a way of its own has no guards for has these.
		TypedPerFilterConfig: guardsOf(t.Guards, nil, nil),
		VirtualHosts:         []*routev3.VirtualHost{virtualHost(nil, merge(bodiless(t), policyFilters(t.Requests)))},
		// Evaluated after the routes' own changes, so no route can claim another caller.
		RequestHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: headerClientCert, Value: clientCert},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
		// Envoy's own addition, of which x-forwarded-for says the same in a way that everyone knows; ours; and what some
		// applications take for the caller, should a route have set it.
		RequestHeadersToRemove: append([]string{"x-envoy-external-address", HeaderPort, names.HeaderAuthentication},
			model.OtherSpellings(headerClientCert)...),
	}
}

// Each goes through the routes of the configuration in their order: those that come of no rule, and the rules; caller
// is the namespace of the callers that a rule is for, "" where it is for all.
func Each(
	trustDomain string, t model.RouteTable, own func(*routev3.Route), rule func(caller string, r *model.Rule),
) {
	own(refuseOddMethods())
	own(refuseHiddenDots())
	for _, c := range t.Callers {
		for _, r := range c.Rules {
			rule(c.Namespace, r)
		}
		own(&routev3.Route{
			Name: "unmatched/" + text(c.Namespace),
			Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}, FilterState: callersOf(trustDomain, c.Namespace),
			},
			Action: answer(http.StatusNotFound, "no rule for the caller's namespace matches"),
		})
	}
	for _, r := range t.Default {
		rule("", r)
	}
	if t.Default == nil {
		own(toService(t))
	}
}

// OfRule are the routes of one rule in the table of an attachment that has such guards, for callers of one namespace
// or, where that is "", for all. It depends on nothing else in the table.
func OfRule(
	trustDomain string, at model.Attachment, guards []model.Guard, caller string, r model.Rule,
) ([]*routev3.Route, []*RuleError) {
	b := &routeBuilder{port: at.Port.Port, guards: guards}
	var guard []*matcherv3.FilterStateMatcher
	if caller != "" {
		guard = callersOf(trustDomain, caller)
	}
	b.add(r, guard)
	return b.routes, b.errs
}

// virtualHost of an attachment, which is one. To a Service's port it makes no difference which host is asked for.
func virtualHost(routes []*routev3.Route, filters map[string]*anypb.Any) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name:        "service",
		Domains:     []string{"*"},
		Routes:      routes,
		RetryPolicy: defaultRetry(),
		// What is repeated or mirrored is held whole until then.
		RequestBodyBufferLimit: wrapperspb.UInt64(heldBody),
		// For all routes, none of which has any of its own: no rule can take it back.
		TypedPerFilterConfig: filters,
	}
}

// CheckRule says why a rule can't be expressed, and whether that is for its match; it is how ingest finds out. Which
// table the rule is put into makes no difference.
func CheckRule(r model.Rule) (badMatch bool, err error) {
	var b routeBuilder
	b.add(r, nil)
	if len(b.errs) == 0 {
		return false, nil
	}
	return b.errs[0].dropped, b.errs[0].err
}

// callersOf matches callers whose service account is in a namespace.
func callersOf(trustDomain, namespace string) []*matcherv3.FilterStateMatcher {
	return []*matcherv3.FilterStateMatcher{{
		Key: names.FilterStateSource,
		Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + text(trustDomain) + "/ns/" + text(namespace) +
				"/"},
		}},
	}}
}

// toService is what happens without routes. A port that is TCP has no cluster for requests; those that come on
// connections from when it was HTTP go where its connections do.
func toService(t model.RouteTable) *routev3.Route {
	out := &routev3.Route{
		Name:  "default",
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
	}
	to := clusterOf(t.Port, t.TLS)
	if !t.Protocol.HTTP() {
		to = names.InboundCluster(t.Port.Namespace, t.Port.Service, t.Port.Port)
	} else if session, err := sessionWith(t.Port, t.Session); err == nil { // ingest checks it
		out.TypedPerFilterConfig = session
	}
	out.Action = &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: to},
		Timeout:          requestTimeout(model.Rule{}),
	}}
	return out
}

// NameOf an attachment is the name of its table.
func NameOf(at model.Attachment) string { return nameOf(at.Port) }

// nameOf a service port is the name of its table.
func nameOf(p model.ServicePort) string { return names.ServicePort(p.Namespace, p.Service, p.Port) }

// clusterTo a backend is the cluster that requests to it go to.
func clusterTo(b model.Backend) string {
	if e := b.External; e != nil {
		return names.External(e.Name.Namespace, e.Name.Name, e.Version)
	}
	return clusterOf(b.Port, b.TLS)
}

// clusterOf a service port is the cluster that requests to it go to.
func clusterOf(p model.ServicePort, tls bool) string {
	return names.RequestsTo(p.Namespace, p.Service, p.Port, tls)
}

type routeBuilder struct {
	port   uint16 // of the Service
	guards []model.Guard
	routes []*routev3.Route
	errs   []*RuleError
}

// add appends the routes of a rule. If its match can't be expressed the rule is left out; if what it does can't be, it
// keeps its place and answers an error, for a request that it matches must not fall through to another rule.
func (b *routeBuilder) add(r model.Rule, guard []*matcherv3.FilterStateMatcher) {
	match, err := routeMatch(r)
	if err != nil {
		b.fail(r, true, err)
		return
	}
	match.FilterState = guard
	routes, err := b.ruleRoutes(r, match)
	for _, route := range routes {
		route.Name = routeName(r)
		err = errors.Join(err, envoy.Check(route))
	}
	others, otherErr := spelledOtherwise(r, match)
	if err = errors.Join(err, otherErr); err != nil {
		if badMatch := envoy.Check(match); badMatch != nil {
			b.fail(r, true, badMatch)
			return
		}
		b.fail(r, false, err)
		routes = []*routev3.Route{{Name: routeName(r), Match: match, Action: refusal(r)}}
	}
	b.routes = append(append(b.routes, routes...), others...)
}

func (b *routeBuilder) fail(r model.Rule, dropped bool, err error) {
	b.errs = append(b.errs, &RuleError{
		source: r.Source, ruleName: r.RuleName, ruleIndex: r.RuleIndex, dropped: dropped,
		err: err,
	})
}

// ruleRoutes are the routes of one rule, without their names: one, or two for redirects that depend on the host's port,
// or one more for each backend that sessions stay with.
func (b *routeBuilder) ruleRoutes(r model.Rule, match *routev3.RouteMatch) ([]*routev3.Route, error) {
	route := &routev3.Route{Match: match}
	if r.Invalid {
		route.Action = answer(refusalStatus(r), "the rule is invalid: see the status of its route")
		return []*routev3.Route{route}, nil
	}
	var request, response headerOps
	var redirect *model.Redirect
	action := &routev3.RouteAction{Timeout: requestTimeout(r), RetryPolicy: retryPolicy(r)}
	for _, f := range r.Filters {
		var err error
		switch {
		case f.RequestHeaders != nil:
			err = request.changeRequest(*f.RequestHeaders)
		case f.ResponseHeaders != nil:
			err = response.change(*f.ResponseHeaders)
		case f.Redirect != nil:
			redirect = f.Redirect
		case f.Rewrite != nil:
			err = rewrite(action, &request, r.Match.Path, *f.Rewrite)
		case f.Mirror != nil:
			mirror(action, *f.Mirror)
		case f.CORS != nil:
			err = configureCORS(route, *f.CORS)
		case f.ExternalAuth != nil && !f.ExternalAuth.Unasked():
			err = configureExternalAuth(route, *f.ExternalAuth, b.guards)
		}
		if err != nil {
			return nil, err
		}
	}
	if refused := unusable(r); refused != nil {
		route.Action = refused
		return []*routev3.Route{route}, nil
	}
	if err := extend(route, r.Source.Namespace, r.Extensions()); err != nil {
		return nil, err
	}
	if redirect != nil {
		request.apply(route)
		response.applyResponse(route)
		return redirects(route, r.Match.Path, *redirect, b.port)
	}
	found, err := b.destinations(route, action, r, &request, &response)
	if err != nil {
		return nil, err
	}
	if !found {
		response.applyResponse(route)
		route.Action = refusal(r)
		return []*routev3.Route{route}, nil
	}
	if request.host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: request.host}
	}
	if r.SessionPersistence != nil {
		if err := sessionOf(route, r); err != nil {
			return nil, err
		}
	}
	request.apply(route)
	response.applyResponse(route)
	route.Action = &routev3.Route_Route{Route: action}
	stay, err := b.stay(route, r)
	return append(stay, route), err
}

// unusable answers for a rule with an extension or an authorization service that can't be used; nil if there is none.
func unusable(r model.Rule) *routev3.Route_DirectResponse {
	if slices.ContainsFunc(r.Extensions(), model.Extension.Unusable) {
		return answer(refusalStatus(r), "an extension of the rule can't be used: see the status of the route")
	}
	if a := r.ExternalAuth(); a != nil && a.Unasked() {
		return unanswered()
	}
	return nil
}

// routeName is what the access log and the introspection show: the rule that decided.
func routeName(r model.Rule) string {
	return text(r.Source.Kind + "/" + r.Source.Namespace + "/" + r.Source.Name + "/" + r.Label())
}

// text is what can be in a protobuf string. Names of Kubernetes objects always can.
func text(s string) string { return strings.ToValidUTF8(s, "?") }

// refusal answers for a rule without a backend that could: 500 for HTTP; for gRPC 503, which clients read as
// UNAVAILABLE.
func refusal(r model.Rule) *routev3.Route_DirectResponse {
	return answer(refusalStatus(r), "the rule has no valid backend")
}

func refusalStatus(r model.Rule) uint32 {
	if r.GRPC {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func answer(status uint32, text string) *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: status,
		Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text + "\n"}},
	}}
}
