// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/url"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	tokenfilter "github.com/fairway-mesh/fairway/internal/translate/authentication" //nolint:importas // ingest has the name
)

// TestStatusesKnowKeysByTheAgentsName: what an agent tells of a source is about the provider that was meant.
func TestStatusesKnowKeysByTheAgentsName(t *testing.T) {
	login := model.ServicePort{Namespace: "keys", Service: "login", Port: 8080}
	of := func(name, uri string, tls bool, cacheFor, timeout time.Duration) model.TokenProvider {
		return model.TokenProvider{Name: name, Issuer: name, Remote: &model.RemoteKeys{
			URI: uri, Service: login, TLS: tls, CacheFor: cacheFor, Timeout: timeout,
		}}
	}
	policy := model.Authentication{
		Policy: model.PolicyName{Namespace: "shop", Name: "web"},
		Tokens: &model.Tokens{Providers: []model.TokenProvider{
			of("a", "https://login.example/keys?a=b&c", false, time.Minute, time.Second),
			of("b", "https://login.example/keys?a=b&c", true, time.Minute, time.Second),
			of("c", "https://login.example/keys?a=b&c", true, time.Minute, 1500*time.Millisecond),
			of("d", "https://login.example/keys", true, 90*time.Second, time.Second),
			{Name: "inline", Issuer: "inline", Keys: "{}"},
		}},
	}
	packed, err := tokenfilter.KeptByAgent(envoy.Any(envoy.Extension(names.FilterTokens, tokenfilter.Tokens(
		model.Authentications{
			Policies: []model.Authentication{policy}, Sets: [][]model.PolicyName{{policy.Policy}},
		}))))
	require.NoError(t, err)
	config, filter := &corev3.TypedExtensionConfig{}, &jwtauthnv3.JwtAuthentication{}
	require.NoError(t, packed.UnmarshalTo(config))
	require.NoError(t, config.GetTypedConfig().UnmarshalTo(filter))
	told := map[string]string{}
	for name, p := range filter.GetProviders() {
		if p.GetRemoteJwks() == nil {
			continue
		}
		u, err := url.Parse(p.GetRemoteJwks().GetHttpUri().GetUri())
		require.NoError(t, err)
		source, err := tokenfilter.ParseKeySource(u.Query())
		require.NoError(t, err)
		told[name] = source.Name()
	}
	known := map[string]string{}
	different := map[string]bool{}
	for _, k := range fetchedKeys(policy) {
		require.Equal(t, login, k.Server)
		known["shop/web/"+k.Provider] = k.Source
		different[k.Source] = true
	}
	require.Equal(t, told, known)
	require.Len(t, different, 4)
}
