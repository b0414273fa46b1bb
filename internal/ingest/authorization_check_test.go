// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// envoysExpressions use all that an expression may use.
var envoysExpressions = []string{
	"true", "!false && (true || false)", "request.path == '/' ? true : false",
	"request.headers['x'] == 'a' && 'y' in request.headers && has(request.headers.z)",
	"request.path.matches('^/[a-z]+$') || matches(request.host, 'a')",
	"request.url_path.startsWith('/a') && request.path.endsWith('b') && request.query.contains('c=d')",
	"request.method in ['GET', 'HEAD'] && request.scheme != 'http' && request.protocol == 'HTTP/2'",
	"size(request.path) < 5 && request.path.size() > 1 && size(request.headers) == 3 && size([1]) == 1",
	"request.size + 1 - 2 * 3 / 4 % 5 <= -6 && source.port >= 7 && destination.port == 8",
	"request.time.getHours() < 5 && request.time - duration('1h') > timestamp('2026-01-01T00:00:00Z')",
	"request.time.getDayOfWeek('Europe/Berlin') == 1 && duration('5m').getMinutes() == 5",
	"int(request.headers['n']) == 1 && uint('2') == 2u && double('1.5') == 1.5 && bytes('a') == b'a'",
	"connection.mtls && connection.id != 3u && connection.tls_version == 'TLSv1.3'",
	"connection.uri_san_peer_certificate.startsWith('spiffe://a/') && connection.requested_server_name == '8080'",
	"metadata.filter_metadata['a']['b'] == 'c' && filter_state['d'] == b'e'",
	"request.useragent == request.referer && request.id == source.address",
	"{'a': true}['a'] && [true][0] && true in {true: 1}",
}

// notEnvoysExpressions are refused, most of them by Envoy, too: see the second value.
var notEnvoysExpressions = map[string]bool{
	"[1].exists(x, x == 1)":     true,
	"[1].all(x, x == 1)":        true,
	"[1].map(x, x) == [1]":      true,
	"[true].filter(x, x)[0]":    true,
	"string(1) == '1'":          true,
	"request.path.lowerAscii()": true,
	"request.path.nope('a')":    true,
	"request.paths == ''":       false, // fails when it is asked
	"request.path + 'a' == ''":  false,
	"unknown == 1":              false,
	"request.path":              false, // matches nothing
	"response.code == 200":      false, // isn't known yet
	"request.headers['x'] == 1": false,
}

// TestExpressionsThatEnvoyTakes: an expression that Envoy refuses would cost everybody else's policies of the table,
// and one that fails when it is asked refuses nobody where it should.
func TestExpressionsThatEnvoyTakes(t *testing.T) {
	binary := xdstest.Binary(t)
	for _, e := range envoysExpressions {
		require.NoError(t, checkCEL(e), e)
	}
	xdstest.Validate(t, binary, expressionConfig(t, envoysExpressions...))
	for e, refused := range notEnvoysExpressions {
		require.Error(t, checkCEL(e), e)
		if refused {
			_, err := xdstest.Check(t, binary, expressionConfig(t, e))
			require.Error(t, err, e)
		}
	}
}

// expressionConfig is the configuration of an Envoy that asks expressions about requests.
func expressionConfig(t *testing.T, expressions ...string) []byte {
	rules := &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}}
	for _, e := range expressions {
		parsed, err := envoy.CEL(e)
		require.NoError(t, err, e)
		rules.Policies[e] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
			Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
			Condition:   parsed,
		}
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "x", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "rbac", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoy.Any(&httprbacv3.RBAC{Rules: rules})}},
			{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoy.Any(&routerv3.Router{})}},
		},
	}
	filter := &listenerv3.Filter{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(hcm)}}
	out, err := protojson.Marshal(&bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{
		Listeners: []*listenerv3.Listener{{
			Name: "x", Address: envoy.Address(netip.MustParseAddrPort("127.0.0.1:0")),
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{filter}}},
		}},
	}})
	require.NoError(t, err)
	return out
}

// TestRegexMustBeWhole: an expression becomes part of a longer one, which an open \Q would spoil for the whole table.
func TestRegexMustBeWhole(t *testing.T) {
	i := &Ingest{check: func(model.Rule) (bool, error) { return false, nil }}
	p := &v1alpha1.AuthorizationPolicy{}
	p.Spec.EnforcementLevel = v1alpha1.EnforcementLevelApplication
	const regex = v1alpha1.AuthorizationMatchRegularExpression
	for value, whole := range map[string]bool{
		`/a\Q.b`: false, `/a\Q.b\E`: true, `/a\\Q`: true, `\Q\`: false, `/a|/b`: true, `(?i)/a`: true,
	} {
		for where, a := range map[string]*v1alpha1.AuthorizationApplicationAttributes{
			"path":   {Paths: []v1alpha1.AuthorizationPath{{Type: regex, Value: value}}},
			"header": {Headers: []v1alpha1.AuthorizationHeader{{Type: regex, Name: "x", Value: &value}}},
		} {
			bad := i.badAccessRule(p, &v1alpha1.AuthorizationRule{ApplicationAttributes: a})
			require.Equal(t, whole, bad == nil, "%s %s", where, value)
		}
	}
}
