// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	requestidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Names under which Envoy registers the network filters.
const (
	filterHTTPManager = "envoy.filters.network.http_connection_manager"
	filterTCPProxy    = "envoy.filters.network.tcp_proxy"
)

// silenceTimeout bounds how long a caller of an undeclared port may be silent before its first request. Where a route made
// a port HTTP that is none, its clients may wait for the server to speak first, and are to hear that it won't.
const silenceTimeout = 5 * time.Second

// stalledTimeout bounds how long one side of a connection may wait for the other to take anything at all. It is for
// connections within the proxy: Envoy 1.40 doesn't tell a side that waits to write that the other one is gone (its issue
// 38148), so the caller or server behind it would wait for ever, and its connection count for as long.
const stalledTimeout = 5 * time.Minute

// closeTimeout bounds how long a caller may take to read anything of the last answer of a connection, and to close it
// then: as long as servers of HTTP commonly wait.
const closeTimeout = time.Minute

// forEver is a time limit that is none, but one that the overload manager of a proxy short of memory can shorten.
const forEver = 10 * 365 * 24 * time.Hour

// ServiceListener is the internal listener of a service port: plain TCP, or HTTP with the route configuration of the same
// name. An HTTP port is never anything else, whatever its callers send or don't: else they could choose to go around the
// routes.
func ServiceListener(p model.WaypointPort) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:                                    listenerName(p.ServicePort),
		ListenerSpecifier:                       internalListener(),
		PerConnectionBufferHighWatermarkTimeout: envoy.Duration(stalledTimeout),
		TrafficDirection:                        corev3.TrafficDirection_INBOUND,
		ListenerFilters: []*listenerv3.ListenerFilter{
			// Gives the connection the address of the caller, as the mTLS listener saw it.
			envoy.ListenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}),
		},
	}
	if !p.HTTP {
		l.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
		l.FilterChains = []*listenerv3.FilterChain{{Name: "tcp", Filters: []*listenerv3.Filter{envoy.NetworkFilter(filterTCPProxy, tcpProxy(p))}}}
		return l
	}
	l.FilterChains = []*listenerv3.FilterChain{{Name: "http", Filters: []*listenerv3.Filter{envoy.NetworkFilter(filterHTTPManager, httpManager(p))}}}
	if p.Protocol == model.ProtocolUndeclared {
		// What the inspector finds decides nothing; it waits for the first bytes.
		l.ListenerFilters = append(l.ListenerFilters,
			envoy.ListenerFilter("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}))
		l.ListenerFiltersTimeout = envoy.Duration(silenceTimeout)
		l.AccessLog = []*accesslogv3.AccessLog{envoy.StdoutErrors(silentLog(p.ServicePort), envoy.NotTaken())}
	}
	return l
}

// tcpProxy passes bytes on. How long a connection may be idle is the application's business.
func tcpProxy(p model.WaypointPort) *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{
		StatPrefix:         "service",
		ClusterSpecifier:   &tcpproxyv3.TcpProxy_Cluster{Cluster: clusterName(p.ServicePort)},
		IdleTimeout:        envoy.Duration(0),
		MaxConnectAttempts: envoy.UInt32(connectAttempts),
		AccessLog:          []*accesslogv3.AccessLog{envoy.StdoutLog(tcpLog(p.ServicePort), envoy.Flagged())},
	}
}

// httpManager changes as little as it can about a request, and keeps out what callers could use to steer the proxy.
func httpManager(p model.WaypointPort) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: "service",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: listenerName(p.ServicePort),
			ConfigSource:    envoy.ADS(0),
		}},
		HttpFilters: httpFilters(),
		// Timeouts are set by routes only, but for headers, which no client has reason to send slowly. Requests may be
		// silent for as long as they like, as long as the proxy has memory to spare.
		StreamIdleTimeout:     envoy.Duration(forEver),
		RequestHeadersTimeout: envoy.Duration(envoy.HeadersTimeout),
		// An answer that ends before its request has the caller still sending. What it sends is no longer read, and its
		// connection must not be closed before it has read the answer; nor before a slow caller has.
		DelayedCloseTimeout: envoy.Duration(closeTimeout),

		// The caller's address is appended to x-forwarded-for. One trusted hop: a gateway before the waypoint keeps
		// its x-forwarded-proto.
		XffNumTrustedHops: 1,
		// What callers claim is dropped; the route configuration sets what the handshake proved.
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,

		// A request ID is the application's if it sent one, and is never altered.
		PreserveExternalRequestId: true,
		RequestIdExtension: &hcmv3.RequestIDExtension{TypedConfig: envoy.Any(&requestidv3.UuidRequestIdConfig{
			PackTraceReason:              envoy.Bool(false),
			UseRequestIdForTraceSampling: envoy.Bool(false),
		})},
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		// Routes match the path that the application will see, with dot segments resolved (RFC 3986) and slashes
		// merged. An escaped slash stays what it is, because to many applications it is data; see spelling.go.
		NormalizePath:                envoy.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		AccessLog: []*accesslogv3.AccessLog{envoy.StdoutLog(httpLog(p.ServicePort),
			envoy.EitherOf(envoy.Flagged(), envoy.AnsweredFrom(http.StatusInternalServerError)))},
	}
	speak(m, p)
	envoy.TrustNoCaller(m)
	return m
}
