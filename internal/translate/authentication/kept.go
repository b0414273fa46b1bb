// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Another configuration of the filter is another filter to Envoy, with no keys. So a waypoint's agent keeps what was
// fetched, and its Envoy asks the agent for keys instead of their server: whatever policy is edited, all keys are there
// at once.

// KeySource is where keys come from, as an agent is asked for them.
type KeySource struct {
	// Namespace of the policy that asks for them.
	Namespace string
	// Cluster of the proxy that leads to the server, and what it is asked for.
	Cluster, URI string
	// CacheFor and Timeout are the policy's.
	CacheFor, Timeout time.Duration
}

// AskAgainFor is how often an Envoy asks its agent for the keys that it has already: so long at most until it has the
// agent's latest.
const AskAgainFor = 5 * time.Second

// Parameters of the URL by which an Envoy asks its agent. They say all that there is to know, for an agent that starts
// anew is asked by an Envoy that didn't.
const (
	keysURL        = "http://agent/keys"
	paramNamespace = "namespace"
	paramCluster   = "cluster"
	paramURI       = "uri"
	paramCacheFor  = "cacheFor"
	paramTimeout   = "timeout"
)

func (s KeySource) url() string {
	return keysURL + "?" + url.Values{
		paramNamespace: {s.Namespace}, paramCluster: {s.Cluster}, paramURI: {s.URI},
		paramCacheFor: {s.CacheFor.String()}, paramTimeout: {s.Timeout.String()},
	}.Encode()
}

// Name tells the operator which source it is.
func (s KeySource) Name() string {
	return names.KeySource(s.Namespace, s.Cluster, s.URI, s.CacheFor, s.Timeout)
}

// ParseKeySource reads what an Envoy asks its agent for.
func ParseKeySource(query url.Values) (s KeySource, err error) {
	s.Namespace, s.Cluster, s.URI = query.Get(paramNamespace), query.Get(paramCluster), query.Get(paramURI)
	if s.CacheFor, err = time.ParseDuration(query.Get(paramCacheFor)); err != nil {
		return s, err
	}
	if s.Timeout, err = time.ParseDuration(query.Get(paramTimeout)); err != nil {
		return s, err
	}
	if s.Cluster == "" || s.URI == "" || s.CacheFor <= 0 || s.Timeout <= 0 {
		return s, errors.New("no source of keys")
	}
	return s, nil
}

// KeptByAgent is the configuration of a filter as an Envoy gets it whose agent keeps keys. It is for all
// configurations: those of other filters stay as they are.
func KeptByAgent(packed *anypb.Any) (*anypb.Any, error) {
	of := &corev3.TypedExtensionConfig{}
	if err := packed.UnmarshalTo(of); err != nil {
		return nil, fmt.Errorf("the configuration of a filter: %w", err)
	}
	if of.GetName() != names.FilterTokens {
		return packed, nil
	}
	filter := &jwtauthnv3.JwtAuthentication{}
	if err := of.GetTypedConfig().UnmarshalTo(filter); err != nil {
		return nil, fmt.Errorf("the filter that verifies tokens: %w", err)
	}
	changed := false
	for name, provider := range filter.GetProviders() {
		r := provider.GetRemoteJwks()
		if r == nil {
			continue
		}
		namespace, _, _ := strings.Cut(name, "/")
		askAgent(r, namespace)
		changed = true
	}
	if !changed {
		return packed, nil
	}
	return envoy.Any(envoy.Extension(of.GetName(), filter)), nil
}

// askAgent for keys instead of their server. The agent has an answer at once, or as soon as the server has.
func askAgent(r *jwtauthnv3.RemoteJwks, namespace string) {
	s := KeySource{
		Namespace: namespace, Cluster: r.GetHttpUri().GetCluster(), URI: r.GetHttpUri().GetUri(),
		CacheFor: r.GetCacheDuration().AsDuration(), Timeout: r.GetHttpUri().GetTimeout().AsDuration(),
	}
	r.HttpUri.Uri = s.url()
	r.HttpUri.HttpUpstreamType = &corev3.HttpUri_Cluster{Cluster: names.ClusterKeys}
	r.HttpUri.Timeout = envoy.Duration(s.Timeout + time.Second)
	r.CacheDuration = envoy.Duration(min(s.CacheFor, AskAgainFor))
}
