// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// tellEvery and tellBytes bound how long lines wait for each other. Where the agent doesn't keep up, Envoy drops lines
	// and holds nobody up.
	tellEvery = time.Second
	tellBytes = 16 << 10
)

// TriedOnly are the connections that were let in, and would not have been if no policy were only tried.
func TriedOnly() *accesslogv3.AccessLogFilter {
	return expression(`filter_state['` + names.FilterStateVerdict + `'] == b'' && filter_state['` +
		names.FilterStateDryRun + `'] != b''`)
}

// TellOfConnections has Envoy tell its agent of connections when they end, nil: of all. The configuration is the same
// for all listeners, so that Envoy has one stream for all on each of its threads.
func TellOfConnections(of *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return tell("envoy.access_loggers.tcp_grpc", of, &grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: toAgent()})
}

// TellOfRequests does the same for requests.
func TellOfRequests(of *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return tell("envoy.access_loggers.http_grpc", of, &grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: toAgent()})
}

func tell(name string, of *accesslogv3.AccessLogFilter, config proto.Message) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name: name, Filter: of, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: Any(config)},
	}
}

func toAgent() *grpclogv3.CommonGrpcAccessLogConfig {
	return &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: "agent", TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.ClusterXDS},
		}},
		BufferFlushInterval: Duration(tellEvery), BufferSizeBytes: UInt32(tellBytes),
		FilterStateObjectsToLog: []string{names.FilterStatePod, names.FilterStateVerdict, names.FilterStateDryRun},
	}
}
