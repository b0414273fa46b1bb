// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package translatetest

import (
	"regexp"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// Validate shows a bootstrap to an Envoy, which must take it.
func Validate(t testing.TB, binary string, o bootstrap.Options) {
	t.Helper()
	o.ID, o.Cluster = "test", "test"
	config, err := bootstrap.Marshal(bootstrap.Bootstrap(o))
	if err != nil {
		t.Fatal(err)
	}
	xdstest.Validate(t, binary, config)
}

var adsSource = regexp.MustCompile(`"ads": ?\{\}`)

// WithoutADS has what a cluster fetches from a stream of its own. Envoy makes static clusters, which ours are here and
// never in life, before its aggregated stream, and crashes if one refers to it.
func WithoutADS(t testing.TB, c *clusterv3.Cluster) *clusterv3.Cluster {
	t.Helper()
	j, err := protojson.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := &clusterv3.Cluster{}
	if err := protojson.Unmarshal(adsSource.ReplaceAll(j, []byte(
		`"apiConfigSource":{"apiType":"GRPC","transportApiVersion":"V3","grpcServices":[{"envoyGrpc":{"clusterName":"`+
			names.ClusterXDS+`"}}]}`)), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Inline is a listener with a route configuration inside, so that Envoy looks into it, too.
func Inline(rc *routev3.RouteConfiguration, filters []*hcmv3.HttpFilter) *listenerv3.Listener {
	rc = proto.CloneOf(rc)
	rc.ValidateClusters = envoy.Bool(false) // as by RDS
	return &listenerv3.Listener{
		Name: "inline/" + rc.GetName(),
		ListenerSpecifier: &listenerv3.Listener_InternalListener{
			InternalListener: &listenerv3.Listener_InternalListenerConfig{},
		},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			envoy.NetworkFilter("envoy.filters.network.http_connection_manager", &hcmv3.HttpConnectionManager{
				StatPrefix:     "inline",
				HttpFilters:    filters,
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc},
			}),
		}}},
	}
}
