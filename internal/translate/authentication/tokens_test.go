// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"net/netip"
	"net/url"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

var (
	bearer = []model.TokenHeader{{Name: "authorization", Prefix: "Bearer "}}
	inline = model.TokenProvider{
		Name: "main", Issuer: "https://login.example", Audiences: []string{"web"}, Headers: bearer,
		Keys: `{"keys": [{"kty": "EC", "crv": "P-256", "x": "WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis", ` +
			`"y": "y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}]}`,
		Claims: []model.ClaimHeader{{Header: "x-user", Claim: "sub"}},
	}
	fetched = model.TokenProvider{
		Name: "second", Issuer: "https://other.example", Forward: true,
		Params: []string{"token"}, Cookies: []string{"session"},
		Headers: []model.TokenHeader{{Name: "x-token"}},
		Remote: &model.RemoteKeys{
			URI: "https://login.example/keys", CacheFor: time.Minute, Timeout: time.Second,
			Service: model.ServicePort{Namespace: "keys", Service: "login", Port: 8080},
		},
		Claims: []model.ClaimHeader{{Header: "x-user", Claim: "email"}, {Header: "x-roles", Claim: "roles"}},
	}
)

func policy(name string, t *model.Tokens) model.Authentication {
	return model.Authentication{Policy: model.PolicyName{Namespace: "shop", Name: name}, Tokens: t, Invalid: t == nil}
}

func set(names ...string) (out []model.PolicyName) {
	for _, name := range names {
		out = append(out, model.PolicyName{Namespace: "shop", Name: name})
	}
	return out
}

func both(a model.Authentications) []proto.Message { return []proto.Message{Form(a), Tokens(a)} }

var cases = map[string]func() []proto.Message{
	"none": func() []proto.Message { return both(model.Authentications{}) },
	"required": func() []proto.Message {
		return both(model.Authentications{
			Policies: []model.Authentication{
				policy("bad", nil),
				policy("one", &model.Tokens{Providers: []model.TokenProvider{inline}}),
				policy("two", &model.Tokens{Providers: []model.TokenProvider{inline, fetched}}),
			},
			Sets: [][]model.PolicyName{set("bad"), set("bad", "one"), set("gone"), set("one"), set("one", "two"), set("two")},
		})
	},
	"optional": func() []proto.Message {
		return both(model.Authentications{
			Policies: []model.Authentication{
				policy("one", &model.Tokens{Optional: true, Providers: []model.TokenProvider{inline}}),
				policy("two", &model.Tokens{Optional: true, Providers: []model.TokenProvider{fetched}}),
				policy("yes", &model.Tokens{Providers: []model.TokenProvider{inline}}),
			},
			Sets: [][]model.PolicyName{set("one"), set("one", "two"), set("one", "yes")},
		})
	},
}

// kept is the filter as an Envoy gets it whose agent keeps keys.
func kept(filter proto.Message) proto.Message {
	packed, err := KeptByAgent(envoy.Any(envoy.Extension(names.FilterTokens, filter)))
	if err != nil {
		panic(err)
	}
	of := &corev3.TypedExtensionConfig{}
	if err := packed.UnmarshalTo(of); err != nil {
		panic(err)
	}
	out, err := of.GetTypedConfig().UnmarshalNew()
	if err != nil {
		panic(err)
	}
	return out
}

// TestKeptByAgent: Envoy asks its agent in a way that says all that the agent must know, and nothing else changes.
func TestKeptByAgent(t *testing.T) {
	filter := Tokens(model.Authentications{
		Policies: []model.Authentication{policy("two", &model.Tokens{Providers: []model.TokenProvider{inline, fetched}})},
		Sets:     [][]model.PolicyName{set("two")},
	})
	packed := envoy.Any(envoy.Extension(names.FilterTokens, filter))
	once, err := KeptByAgent(packed)
	require.NoError(t, err)
	again, err := KeptByAgent(packed)
	require.NoError(t, err)
	require.True(t, proto.Equal(once, again))
	remote := kept(filter).(*jwtauthnv3.JwtAuthentication).GetProviders()["shop/two/second"].GetRemoteJwks()
	require.Equal(t, names.ClusterKeys, remote.GetHttpUri().GetCluster())
	require.LessOrEqual(t, remote.GetCacheDuration().AsDuration(), AskAgainFor)
	u, err := url.Parse(remote.GetHttpUri().GetUri())
	require.NoError(t, err)
	s, err := ParseKeySource(u.Query())
	require.NoError(t, err)
	require.Equal(t, KeySource{
		Namespace: "shop", Cluster: "service/keys/login/8080", URI: "https://login.example/keys", CacheFor: time.Minute,
		Timeout: time.Second,
	}, s)
	for _, other := range []*anypb.Any{
		envoy.Any(envoy.Extension(names.FilterForm, Form(model.Authentications{}))),
		envoy.Any(envoy.Extension(names.FilterTokens, Tokens(model.Authentications{}))),
	} {
		same, err := KeptByAgent(other)
		require.NoError(t, err)
		require.True(t, proto.Equal(other, same))
	}
	_, err = KeptByAgent(envoy.Any(envoy.Extension(names.FilterTokens, Form(model.Authentications{}))))
	require.Error(t, err)
}

func TestGolden(t *testing.T) { translatetest.Golden(t, "testdata", cases, translatetest.List) }

// TestEnvoyAcceptsGoldens shows every golden case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			filters := build()
			m := &hcmv3.HttpConnectionManager{
				StatPrefix:     "test",
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{}},
				HttpFilters: []*hcmv3.HttpFilter{
					envoy.HTTPFilter(names.FilterForm, filters[0]), envoy.HTTPFilter(names.FilterTokens, filters[1]),
					envoy.HTTPFilter("envoy.filters.http.router", &routerv3.Router{}),
				},
			}
			require.NoError(t, envoy.Check(m))
			translatetest.Validate(t, binary, bootstrap.Options{Listeners: []*listenerv3.Listener{{
				Name: "test", Address: envoy.Address(netip.MustParseAddrPort("127.0.0.1:80")),
				FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
					envoy.NetworkFilter("envoy.filters.network.http_connection_manager", m),
				}}},
			}}})
		})
	}
}
