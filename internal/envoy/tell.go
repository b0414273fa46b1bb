// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// tellEvery and tellBytes bound how long lines wait for each other. Where the agent doesn't keep up, Envoy drops lines
	// and holds nobody up.
	tellEvery = time.Second
	tellBytes = 16 << 10
	// tellOpenEvery is shorter: a policy may have changed while a connection came.
	tellOpenEvery = 300 * time.Millisecond
	// RetellEvery is how often a connection that stays open is told of again, for an agent that has started anew, and for
	// lines that were dropped.
	RetellEvery = time.Minute
)

// TriedOnly are the connections that were let in, and would not have been if no policy were only tried.
func TriedOnly() *accesslogv3.AccessLogFilter {
	return expression(`filter_state['` + names.FilterStateVerdict + `'] == b'' && filter_state['` +
		names.FilterStateDryRun + `'] != b''`)
}

// TellOfConnections has Envoy tell its agent of connections when they end, nil: of all. The configuration is the same
// for all listeners, so that Envoy has one stream for all on each of its threads.
func TellOfConnections(of *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return tell("envoy.access_loggers.tcp_grpc", of, &grpclogv3.TcpGrpcAccessLogConfig{
		CommonConfig: toAgent(names.LogCallers, tellEvery),
	})
}

// TellOfRequests does the same for requests.
func TellOfRequests(of *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return tell("envoy.access_loggers.http_grpc", of, &grpclogv3.HttpGrpcAccessLogConfig{
		CommonConfig: toAgent(names.LogCallers, tellEvery),
	})
}

// TellOfOpen has Envoy tell its agent, under a name, which connections are open: of each when it leads to an
// application, now and then as long as it lasts, and at its end. All other logs of the same tcp_proxy hear of ends
// only.
func TellOfOpen(log string, p *tcpproxyv3.TcpProxy) *tcpproxyv3.TcpProxy {
	return tellOfOpen(toAgent(log, tellOpenEvery), nil, p)
}

// TellOfNeighbours does so of connections that a pod makes to neighbours, as if they came in mTLS.
func TellOfNeighbours(p *tcpproxyv3.TcpProxy) *tcpproxyv3.TcpProxy {
	to := toAgent(names.LogMTLS, tellOpenEvery)
	to.FilterStateObjectsToLog = append(to.FilterStateObjectsToLog, names.FilterStateSource, names.FilterStateNeighbour)
	return tellOfOpen(to, expression(toNeighbour), p)
}

// toNeighbour are the connections to neighbours, of a listener that tells them apart.
const toNeighbour = `filter_state['` + names.FilterStateNeighbour + `'] != b''`

func tellOfOpen(
	to *grpclogv3.CommonGrpcAccessLogConfig, of *accesslogv3.AccessLogFilter, p *tcpproxyv3.TcpProxy,
) *tcpproxyv3.TcpProxy {
	ended := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_LogTypeFilter{
		LogTypeFilter: &accesslogv3.LogTypeFilter{Types: []accesslogdatav3.AccessLogType{
			accesslogdatav3.AccessLogType_TcpConnectionEnd,
		}},
	}}
	for _, other := range p.GetAccessLog() {
		other.Filter = bothOf(ended, other.GetFilter())
	}
	p.AccessLogOptions = &tcpproxyv3.TcpProxy_TcpAccessLogOptions{
		FlushAccessLogOnConnected: true, AccessLogFlushInterval: Duration(RetellEvery),
	}
	p.AccessLog = append(p.AccessLog, tell("envoy.access_loggers.tcp_grpc", of, &grpclogv3.TcpGrpcAccessLogConfig{
		CommonConfig: to,
	}))
	return p
}

func tell(name string, of *accesslogv3.AccessLogFilter, config proto.Message) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name: name, Filter: of, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: Any(config)},
	}
}

func toAgent(log string, every time.Duration) *grpclogv3.CommonGrpcAccessLogConfig {
	return &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: log, TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.ClusterXDS},
		}},
		BufferFlushInterval: Duration(every), BufferSizeBytes: UInt32(tellBytes),
		FilterStateObjectsToLog: []string{names.FilterStatePod, names.FilterStateVerdict, names.FilterStateDryRun},
	}
}

// StateText is text in the filter state that the agent is told; "" if it isn't there.
func StateText(line *accesslogdatav3.AccessLogCommon, key string) string {
	s := &wrapperspb.StringValue{}
	if packed := line.GetFilterStateObjects()[key]; packed == nil || packed.UnmarshalTo(s) != nil {
		return ""
	}
	return s.GetValue()
}

// PeerIdentity is who the caller has proved to be; "": nobody.
func PeerIdentity(line *accesslogdatav3.AccessLogCommon) string {
	for _, san := range line.GetTlsProperties().GetPeerCertificateProperties().GetSubjectAltName() {
		if san.GetUri() != "" {
			return san.GetUri()
		}
	}
	return ""
}
