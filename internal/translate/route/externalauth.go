// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bodysizev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// An authorization service is asked by Envoy's ext_authz, with its whole configuration in the route that asks for it:
// so each route has a service of its own, and a change of it is a change of the table.

// configureExternalAuth has a service asked about the requests of a route, besides those that guards have asked where
// no way that a request takes has its own.
func configureExternalAuth(r *routev3.Route, a model.ExternalAuth, guards []model.Guard) error {
	asking, err := externalAuth(a)
	if err != nil {
		return fmt.Errorf("externalAuth: %w", err)
	}
	r.TypedPerFilterConfig = merge(r.TypedPerFilterConfig, showing(&a, guards, nil))
	return configure(r, filterAuth, become(chainOf(a, asking)...))
}

// chainOf filters asks; what only the service can set it takes out before.
func chainOf(a model.ExternalAuth, asking *extauthzv3.ExtAuthz) []*corev3.TypedExtensionConfig {
	chain := []*corev3.TypedExtensionConfig{envoy.Extension("envoy.filters.http.ext_authz", asking)}
	if hidden := onlyOfService(a); len(hidden) > 0 {
		chain = slices.Insert(chain, 0, envoy.Extension("envoy.filters.http.header_mutation", removing(hidden)))
	}
	return chain
}

// asking configures whom AuthenticationPolicies have asked on one way that requests take, or takes back what a less
// specific part of the table says of it. Where they want several services to be asked, or one that can't be, requests
// are refused, unless that one is content with it.
func asking(guards, elsewhere []model.Guard) map[string]*anypb.Any {
	who, nobody := model.WhomToAsk(guards)
	var chain []*corev3.TypedExtensionConfig
	switch {
	case who != nil:
		if filter, err := externalAuth(*who); err == nil {
			chain = append(shownWhole(*who), chainOf(*who, filter)...)
			break
		}
		fallthrough
	case nobody:
		chain = []*corev3.TypedExtensionConfig{askingNobody()}
	case len(model.Asked(elsewhere)) > 0:
		chain = []*corev3.TypedExtensionConfig{nothing()}
	default:
		return nil
	}
	return map[string]*anypb.Any{filterAsk: envoy.Any(become(chain...))}
}

// shownWhole refuses a body that an extension of the route has made longer than the service is shown.
func shownWhole(a model.ExternalAuth) []*corev3.TypedExtensionConfig {
	if a.MaxBody == 0 {
		return nil
	}
	return []*corev3.TypedExtensionConfig{envoy.Extension("envoy.filters.http.body_size_limit",
		&bodysizev3.BodySizeLimit{MaxRequestBytes: wrapperspb.UInt64(uint64(a.MaxBody))})}
}

// askingNobody lets nothing pass.
func askingNobody() *corev3.TypedExtensionConfig {
	filter, _ := externalAuth(model.ExternalAuth{GRPC: true})
	filter.GetGrpcService().GetEnvoyGrpc().ClusterName = clusterInvalid
	return envoy.Extension("envoy.filters.http.ext_authz", filter)
}

func externalAuth(a model.ExternalAuth) (*extauthzv3.ExtAuthz, error) {
	if err := checkAuthHeaders(a); err != nil {
		return nil, err
	}
	out := &extauthzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		// Without an answer nothing passes, and who asks for it may ask again: nobody has said no.
		StatusOnError: &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		DisallowedHeaders: &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{
			exact(HeaderPort), {MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: envoy.ControlHeaders}},
		}},
		DecoderHeaderMutationRules:  authMayChange(),
		ValidateMutations:           true,
		FailureModeAllow:            a.Open,
		EnforceResponseHeaderLimits: true,
	}
	if len(a.Shown) > 0 {
		out.AllowedHeaders = headersSpelled(a.Shown)
	}
	if a.MaxBody > 0 {
		// A longer one is refused (413): the service would decide on a part of what the application gets.
		out.WithRequestBody = &extauthzv3.BufferSettings{MaxRequestBytes: a.MaxBody}
	}
	if !a.GRPC {
		service, err := authByHTTP(a)
		if err != nil {
			return nil, err
		}
		out.Services = &extauthzv3.ExtAuthz_HttpService{HttpService: service}
		return out, envoy.Check(out)
	}
	service := grpcBy(clusterOf(a.Service, a.TLS), a.Service)
	service.Timeout = envoy.Duration(positive(&a.Timeout))
	out.Services = &extauthzv3.ExtAuthz_GrpcService{GrpcService: service}
	return out, envoy.Check(out)
}

// grpcBy asks a service by gRPC, through a cluster.
func grpcBy(cluster string, service model.ServicePort) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster, Authority: service.Service},
	}}
}

// authByHTTP asks by a request like the one that is decided on. The service is told the caller as applications are.
func authByHTTP(a model.ExternalAuth) (*extauthzv3.HttpService, error) {
	path, err := pathBefore(a.Path)
	if err != nil {
		return nil, err
	}
	taken := headersNamed(a.Taken)
	if len(a.Taken) == 0 {
		taken = &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{matching(`[^:].*`)}}
	}
	return &extauthzv3.HttpService{
		ServerUri: &corev3.HttpUri{
			Uri:              "http://authorization", // Envoy wants one, and does nothing with it
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: clusterOf(a.Service, a.TLS)},
			Timeout:          envoy.Duration(positive(&a.Timeout)),
		},
		PathPrefix: path,
		AuthorizationRequest: &extauthzv3.AuthorizationRequest{HeadersToAdd: []*corev3.HeaderValue{{
			Key: headerClientCert, Value: clientCert,
		}}},
		AuthorizationResponse: &extauthzv3.AuthorizationResponse{AllowedUpstreamHeaders: taken},
	}, nil
}

// ofAnswer are headers that say something of the service's own answer, and where it ends. With a request they would be
// false.
var ofAnswer = []string{
	"content-encoding", "content-language", "content-length", "content-location", "content-range", "content-type",
	"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// authMayChange is what an authorization service may change of a request: neither where it ends nor where it is for,
// nor what steers the proxy, nor who calls. Changes of something else are left out.
func authMayChange() *mutationrulesv3.HeaderMutationRules {
	return &mutationrulesv3.HeaderMutationRules{
		DisallowSystem: envoy.Bool(true),
		DisallowExpression: &matcherv3.RegexMatcher{
			Regex: `(?i)host|` + controlHeaders + `.*|` + anyOf(append(
				[]string{HeaderPort, names.HeaderAuthentication, headerClientCert}, ofAnswer...), model.SpellingsPattern),
		},
	}
}

// onlyOfService are headers that only the service can set, as expressions: a request brings none, in no spelling, or
// the application would take the client's word for the service's. What the service is shown it decides on, so that
// stays.
func onlyOfService(a model.ExternalAuth) (out []string) {
	for _, name := range a.Taken {
		shown := strings.EqualFold(name, "authorization") ||
			slices.ContainsFunc(a.Shown, func(s string) bool { return model.HeaderSpelled(s) == model.HeaderSpelled(name) })
		if !a.GRPC && !shown {
			out = append(out, model.SpellingsPattern(name))
		}
	}
	return out
}

// removing takes headers out of requests, also out of their trailers, which some applications read as headers.
func removing(headers []string) *headermutationv3.HeaderMutation {
	all := []*mutationrulesv3.HeaderMutation{envoy.RemoveHeaders(matching(strings.Join(headers, "|")))}
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: all, RequestTrailersMutations: all,
	}}
}

// headersSpelled are headers in all spellings: who decides on one sees whatever the application may read for it.
func headersSpelled(headers []string) *matcherv3.ListStringMatcher {
	out := &matcherv3.ListStringMatcher{}
	for _, name := range headers {
		out.Patterns = append(out.Patterns, matching(`(?i)`+model.SpellingsPattern(name)))
	}
	return out
}

func headersNamed(headers []string) *matcherv3.ListStringMatcher {
	out := &matcherv3.ListStringMatcher{}
	for _, name := range headers {
		out.Patterns = append(out.Patterns, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}, IgnoreCase: true,
		})
	}
	return out
}

func checkAuthHeaders(a model.ExternalAuth) error {
	for _, name := range slices.Concat(a.Shown, a.Taken) {
		if !httpguts.ValidHeaderFieldName(name) || strings.Contains(name, "*") {
			return fmt.Errorf("%q is not the name of a header (there are no wildcards)", name)
		}
	}
	reserved := append([]string{HeaderPort, headerClientCert, names.HeaderAuthentication}, ofAnswer...)
	for _, name := range a.Taken {
		spelled := model.HeaderSpelled(name)
		if isHost(name) || strings.HasPrefix(spelled, envoy.ControlHeaders) || slices.Contains(reserved, spelled) {
			return fmt.Errorf("allowedResponseHeaders: an authorization service can't set header %q of a request", name)
		}
	}
	return nil
}

// authPath is a path of which all servers read the same.
var authPath = regexp.MustCompile(`^(?:/[-A-Za-z0-9._~!$&'()*+,=:@]+)*/?$`)

// pathBefore is what goes before a request's path, which begins with a slash.
func pathBefore(path string) (string, error) {
	if !authPath.MatchString(path) {
		return "", fmt.Errorf("http.path: %q is not a path to ask at: it must begin with a slash and have neither empty "+
			"segments nor escapes nor parameters", path)
	}
	path = strings.TrimSuffix(path, "/")
	for _, segment := range strings.Split(path, "/") {
		if segment == "." || segment == ".." {
			return "", errors.New("http.path: segments of dots lead elsewhere: leave them out")
		}
	}
	return path, nil
}

// unanswered is for a rule whose authorization service can't be asked.
func unanswered() *routev3.Route_DirectResponse {
	return answer(http.StatusServiceUnavailable,
		"the authorization service can't be asked: see the status of the route")
}
