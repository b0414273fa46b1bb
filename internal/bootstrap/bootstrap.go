// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bootstrap makes the configuration that an Envoy of the mesh starts with: who it is, that everything else
// comes by delta ADS from the agent on a Unix socket, where its admin interface is, which statistics it keeps, and when
// it protects itself. It is pure; writing the file is the agent's work.
package bootstrap

import (
	"fmt"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	internallistenerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// ComponentLogLevel are the exceptions from a waypoint's log level, as Envoy's argument of that name takes them. Of
// each range of addresses in a configuration, misc warns that its type may change with Envoy's version.
const ComponentLogLevel = "rbac:error,misc:error"

// Options of one proxy.
type Options struct {
	// ID and Cluster of the Envoy node: for people and metrics only. What a proxy may see is decided by its agent's
	// authenticated identity, never by this.
	ID, Cluster string
	// XDSSocket and AdminSocket default to names.XDSSocket and names.AdminSocket.
	XDSSocket, AdminSocket string
	// WildcardClusters subscribes to all clusters of the scope. A waypoint needs it; a node proxy asks for clusters on
	// demand, so that its memory follows its working set.
	WildcardClusters bool
	// MaxConnections over all listeners; beyond it new connections are closed at once. Zero: DefaultMaxConnections. See
	// ConnectionsWithin.
	MaxConnections uint64
	// Memory that the proxy's container may have, in bytes; it defends itself before it has that much. Zero: unknown.
	Memory uint64
	// Listeners and Clusters that the proxy has from the start.
	Listeners []*listenerv3.Listener
	Clusters  []*clusterv3.Cluster
}

// Marshal is the bootstrap as JSON, which Envoy reads from a file named *.json or *.yaml.
func Marshal(b *bootstrapv3.Bootstrap) ([]byte, error) {
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("marshal the Envoy bootstrap: %w", err)
	}
	return out, nil
}

// Bootstrap is the configuration that a proxy starts with.
func Bootstrap(o Options) *bootstrapv3.Bootstrap {
	if o.XDSSocket == "" {
		o.XDSSocket = names.XDSSocket
	}
	if o.AdminSocket == "" {
		o.AdminSocket = names.AdminSocket
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	dynamic := &bootstrapv3.Bootstrap_DynamicResources{
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.ClusterXDS},
				},
			}},
			SetNodeOnFirstMessageOnly: true,
		},
		LdsConfig: envoy.ADS(0),
	}
	if o.WildcardClusters {
		dynamic.CdsConfig = envoy.ADS(0)
	}
	return &bootstrapv3.Bootstrap{
		Node:             &corev3.Node{Id: o.ID, Cluster: o.Cluster},
		DynamicResources: dynamic,
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: o.Listeners,
			Clusters:  append([]*clusterv3.Cluster{xdsCluster(o.XDSSocket)}, o.Clusters...),
		},
		Admin: &bootstrapv3.Admin{
			Address:   envoy.PipeAddress(o.AdminSocket),
			AccessLog: []*accesslogv3.AccessLog{},
		},
		BootstrapExtensions: []*corev3.TypedExtensionConfig{
			envoy.Extension("envoy.bootstrap.internal_listener", &internallistenerv3.InternalListener{}),
		},
		LayeredRuntime: runtime(),
		StatsConfig:    stats(),
		StatsEviction: &bootstrapv3.Bootstrap_StatsEvictionInterval{
			StatsEvictionInterval: envoy.Duration(statsEviction),
		},
		OverloadManager:        overload(o.MaxConnections, o.Memory),
		MemoryAllocatorManager: allocator(o.Memory),
		Watchdogs:              watchdogs(),
	}
}

// hangTimeout is how long a thread of the proxy may do nothing but one thing: long enough for a node that has no CPU to
// spare.
const hangTimeout = time.Minute

// watchdogs end a proxy one of whose threads hangs, so that kubelet starts another. Nobody else would: kubelet's probes
// ask the agent.
func watchdogs() *bootstrapv3.Watchdogs {
	w := &bootstrapv3.Watchdog{KillTimeout: envoy.Duration(hangTimeout)}
	return &bootstrapv3.Watchdogs{MainThreadWatchdog: w, WorkerWatchdog: w}
}

// xdsCluster leads to the agent beside the proxy. Pings find an agent that hangs.
func xdsCluster(socket string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 names.ClusterXDS,
		ConnectTimeout:       envoy.Duration(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.Any(&upstreamhttpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
								Interval: envoy.Duration(30 * time.Second),
								Timeout:  envoy.Duration(10 * time.Second),
							}},
						},
					},
				},
			}),
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: names.ClusterXDS,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{
				LbEndpoints: []*endpointv3.LbEndpoint{envoy.LbEndpoint(envoy.PipeAddress(socket), nil)},
			}},
		},
	}
}

// runtimeTimeout bounds how long a proxy that starts waits for the runtime layer of the mesh. Without it, it goes by
// the defaults, and takes the layer in when it comes.
const runtimeTimeout = 2 * time.Second

// runtime switches that every proxy has, and those that the mesh may change while it runs.
func runtime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{
			StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				// Deprecated configuration is an error in our tests today, not a surprise at the next upgrade.
				"envoy.features.fail_on_any_deprecated_feature": structpb.NewBoolValue(true),
				// A connection that is cut must never look like one that ended: a reset passes on as a reset, both ways. (The
				// first switch is about tcp_proxy as a whole, whatever its name says of tunnels.)
				"envoy.reloadable_features.propagate_upstream_rst_through_tunneled_tcp_proxy": structpb.NewBoolValue(true),
				"envoy.reloadable_features.propagate_downstream_rst_to_upstream":              structpb.NewBoolValue(true),
				"envoy.reloadable_features.ssl_socket_report_connection_reset":                structpb.NewBoolValue(true),
				// Policies compare a header that comes several times as what it is to servers, a list with commas. Value by value,
				// Envoy would be content with one that is allowed.
				"envoy.reloadable_features.rbac_match_headers_individually": structpb.NewBoolValue(false),
				// A header by which a policy's application gets a claim is an ordinary one to all others. Each policy takes its
				// own from the requests that it is for.
				"envoy.reloadable_features.jwt_authn_sanitize_payload_headers_filter_wide": structpb.NewBoolValue(false),
				// HTTP/2 packs headers that repeat to next to nothing, so one read may bring any number of requests that take
				// memory. Between a few of them and the next, a worker sees to what the overload manager says.
				"http.max_requests_per_io_cycle": structpb.NewNumberValue(8),
				// Envoy's default of 100 refuses ordinary expressions of routes, such as [a-z0-9-]{1,63}. The translators
				// bound the size themselves, so that one expression can't make Envoy refuse a whole resource.
				"re2.max_program_size.error_level": structpb.NewNumberValue(1 << 20),
			}},
		},
	}, {
		Name: names.RuntimeLayer,
		LayerSpecifier: &bootstrapv3.RuntimeLayer_RtdsLayer_{RtdsLayer: &bootstrapv3.RuntimeLayer_RtdsLayer{
			Name:       names.RuntimeLayer,
			RtdsConfig: envoy.ADS(runtimeTimeout),
		}},
	}}}
}
