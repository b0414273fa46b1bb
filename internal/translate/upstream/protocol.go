// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	upstreamcodecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// idleUpstream is how long a connection to an application is kept without a request. It must end before the application
// ends it, or a request meets a connection that is just closing and can't be sent again, for nobody knows whether it
// arrived. Of the servers in common use gunicorn ends it first, after 2 s. A new one costs
// a handshake.
const idleUpstream = time.Second

// protocols are the options of a cluster that say how HTTP is spoken.
type protocols = map[string]*anypb.Any

// protocolOptions say how HTTP is spoken with an application, also on a port that is declared to be TCP: a rule may
// send requests to it all the same.
func protocolOptions(u model.Upstream, headers model.HeaderLimits) protocols {
	o, h2 := httpOptions(headers, cmp.Or(u.Kept.IdleTimeout, idleUpstream))
	if u.Kept.MaxDuration > 0 {
		o.CommonHttpProtocolOptions.MaxConnectionDuration = envoy.Duration(u.Kept.MaxDuration)
	}
	if u.Protocol == model.ProtocolHTTP2 {
		o.UpstreamProtocolOptions = onlyHTTP2(h2)
	} else {
		o.UpstreamProtocolOptions = asCaller(&corev3.Http1ProtocolOptions{EnableTrailers: true}, h2)
	}
	return packed(o)
}

// httpOptions are what all clusters of requests have, with filters that come after those that decide; and HTTP/2's.
func httpOptions(
	headers model.HeaderLimits, idle time.Duration, last ...*hcmv3.HttpFilter,
) (*upstreamhttpv3.HttpProtocolOptions, *corev3.Http2ProtocolOptions) {
	filters := []*hcmv3.HttpFilter{
		// Who may ask for what: route tables say so.
		envoy.HTTPFilter(names.FilterAuthorization, &httprbacv3.RBAC{}),
		envoy.HTTPFilter(names.FilterAuthorizationCEL, &httprbacv3.RBAC{}),
	}
	filters = append(filters, last...)
	return &upstreamhttpv3.HttpProtocolOptions{
			CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
				IdleTimeout:          envoy.Duration(idle),
				MaxHeadersCount:      envoy.HeaderCount(headers.Count),
				MaxResponseHeadersKb: envoy.HeadersKiB(headers.KiB),
			},
			HttpFilters: append(filters,
				envoy.HTTPFilter("envoy.filters.http.upstream_codec", &upstreamcodecv3.UpstreamCodec{})),
		},
		&corev3.Http2ProtocolOptions{AllowConnect: true, MaxHeaderFieldSizeKb: envoy.HeaderFieldKiB(headers.KiB)}
}

func onlyHTTP2(h2 *corev3.Http2ProtocolOptions) *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: h2,
			},
		},
	}
}

func asCaller(
	h1 *corev3.Http1ProtocolOptions, h2 *corev3.Http2ProtocolOptions,
) *upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig {
	return &upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
		UseDownstreamProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: h1, Http2ProtocolOptions: h2,
		},
	}
}

func packed(o *upstreamhttpv3.HttpProtocolOptions) protocols {
	return protocols{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.Any(o)}
}
