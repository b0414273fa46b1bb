// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	requestidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// This file is what the two filter chains of the mTLS listener end in: one HTTP connection manager and one TCP proxy
// for all ports.

const filterHTTPManager = "envoy.filters.network.http_connection_manager"

const (
	// idleDownstream is how long a connection of a caller is kept without a request, or without its first one: longer
	// than HTTP clients keep theirs, so that it is they who end it.
	idleDownstream = 10 * time.Minute
	// closeTimeout bounds how long a caller may take to read anything of the last answer of a connection, and to close
	// it then. Envoy's own 1 s would cut slow readers off. But everyone waits for it who is answered before the end of a
	// long body and reads nothing until all is sent, or whose answer broke off: Envoy keeps that to itself meanwhile.
	closeTimeout = 5 * time.Second
	// connectAttempts over different endpoints, before a caller of a TCP port sees a failure.
	connectAttempts = 3
	// forEver is a time limit that is none, but one that the overload manager of a proxy short of memory can shorten.
	forEver = 10 * 365 * 24 * time.Hour
)

// tcpProxy passes bytes on. How long a connection may be idle is the application's business. The agent is told which
// are open, to end them when policies narrow.
func tcpProxy() *tcpproxyv3.TcpProxy {
	return envoy.TellOfOpen(names.LogMTLS, &tcpproxyv3.TcpProxy{
		StatPrefix:         names.ListenerMTLS,
		ClusterSpecifier:   &tcpproxyv3.TcpProxy_Cluster{Cluster: "unset"}, // the filter state decides
		MaxConnectAttempts: envoy.UInt32(connectAttempts),
		AccessLog: append([]*accesslogv3.AccessLog{
			envoy.StdoutLog(tcpLog(), envoy.EitherOf(envoy.Flagged(), envoy.Tried())),
			envoy.TellOfConnections(envoy.TriedOnly()),
		}, envoy.CountRefused("destination", "%REQUESTED_SERVER_NAME%")...),
	})
}

// refuse ends a connection that leads nowhere, and says so in the log.
func refuse() *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{
		StatPrefix:       chainRefused,
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "nowhere"},
		AccessLog:        []*accesslogv3.AccessLog{envoy.StdoutErrors(refusedLog(), envoy.Flagged())},
	}
}

// httpManager changes as little as it can about a request, and keeps out what callers could use to steer the proxy.
func httpManager(limits model.HeaderLimits) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:     "service",
		RouteSpecifier: &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: route.Tables(names.ListenerMTLS)},
		HttpFilters:    httpFilters(),
		// Where there is no table.
		LocalReplyConfig: answerGone(),
		// Timeouts are set by routes only, but for headers, which no client has reason to send slowly. Requests may be
		// silent for as long as they like, as long as the proxy has memory to spare.
		StreamIdleTimeout:     envoy.Duration(forEver),
		RequestHeadersTimeout: envoy.Duration(envoy.HeadersTimeout),
		DelayedCloseTimeout:   envoy.Duration(closeTimeout),

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
		AccessLog: []*accesslogv3.AccessLog{
			envoy.StdoutLog(httpLog(), envoy.EitherOf(envoy.TriedRequests(),
				envoy.EitherOf(envoy.Flagged(), envoy.AnsweredFrom(http.StatusInternalServerError)))),
			envoy.TellOfRequests(envoy.EitherOf(envoy.TriedRequests(), envoy.WithUnknownKey())),
		},
	}
	speak(m, limits)
	envoy.TrustNoCaller(m, arrival()...)
	return m
}

// httpFilters end connections to ports that are gone (gone.go), and do what routes say.
func httpFilters() []*hcmv3.HttpFilter {
	return append([]*hcmv3.HttpFilter{endConnection()}, route.Filters()...)
}

// arrival is what a request gets before anything reads it: nothing that some application takes for what the proxy says
// of the caller, the port that it is for, nothing that only its table may say, and that its caller spoke HTTP where no
// gateway has said anything else: Envoy would say https, for it sees the TLS of the mesh.
func arrival() []*mutationrulesv3.HeaderMutation {
	return append(route.RemoveLookalikes(),
		envoy.SetHeader(route.HeaderPort, "%REQUESTED_SERVER_NAME%", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
		&mutationrulesv3.HeaderMutation{
			Action: &mutationrulesv3.HeaderMutation_Remove{Remove: names.HeaderAuthentication},
		},
		envoy.SetHeader("x-forwarded-proto", "http", corev3.HeaderValueOption_ADD_IF_ABSENT),
	)
}
