// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/xds"
)

func edsName(r *xds.Resource) string {
	c := &clusterv3.Cluster{}
	if r.Any().UnmarshalTo(c) != nil || c.GetType() != clusterv3.Cluster_EDS {
		return ""
	}
	return c.GetEdsClusterConfig().GetServiceName()
}

var sayNoEnvoy = sync.OnceFunc(func() {
	_, _ = os.Stderr.WriteString("no envoy in PATH or FAIRWAY_ENVOY: goldens are not validated by it\n")
})

func findEnvoy() string {
	if p := os.Getenv("FAIRWAY_ENVOY"); p != "" {
		return p
	}
	p, _ := exec.LookPath("envoy")
	return p
}

// validateWithEnvoy lets stock Envoy judge everything that a scope is served. Route configurations become listeners of
// their own, so that Envoy looks into them, too.
func validateWithEnvoy(t testing.TB, cache *xds.Cache, scope xds.Scope) {
	binary := findEnvoy()
	if binary == "" {
		sayNoEnvoy()
		return
	}
	var o bootstrap.Options
	for _, r := range cache.List(scope, xds.TypeListener) {
		o.Listeners = append(o.Listeners, as[*listenerv3.Listener](t, r))
	}
	for _, r := range cache.List(scope, xds.TypeCluster) {
		o.Clusters = append(o.Clusters, withoutADS(t, as[*clusterv3.Cluster](t, r)))
	}
	for _, r := range cache.List(scope, xds.TypeRoute) {
		o.Listeners = append(o.Listeners, routeListener(as[*routev3.RouteConfiguration](t, r)))
	}
	b := bootstrap.Bootstrap(o)
	judge(t, binary, b)
}

// withoutADS gives a cluster streams of its own. Envoy makes static clusters before its aggregated stream and crashes if
// one refers to it; ours come over that stream and are static here only to be judged.
func withoutADS(t testing.TB, c *clusterv3.Cluster) *clusterv3.Cluster {
	text, err := protojson.Marshal(c)
	require.NoError(t, err)
	text = adsSource.ReplaceAll(text, []byte(`"apiConfigSource":{"apiType":"GRPC","transportApiVersion":"V3",`+
		`"grpcServices":[{"envoyGrpc":{"clusterName":"`+bootstrap.ClusterXDS+`"}}]}`))
	out := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal(text, out))
	return out
}

var adsSource = regexp.MustCompile(`"ads": ?\{\}`)

func as[M proto.Message](t testing.TB, r *xds.Resource) M {
	m, err := r.Any().UnmarshalNew()
	require.NoError(t, err)
	return m.(M)
}

func routeListener(rc *routev3.RouteConfiguration) *listenerv3.Listener {
	// Names of clusters are checked against what EDS and on-demand clusters would bring only at run time.
	rc.ValidateClusters = envoy.Bool(false)
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:     "validate",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc},
		HttpFilters:    []*hcmv3.HttpFilter{envoy.HTTPFilter("envoy.filters.http.router", &routerv3.Router{})},
	}
	return &listenerv3.Listener{
		Name:              "validate/" + rc.GetName(),
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			envoy.NetworkFilter("envoy.filters.network.http_connection_manager", hcm),
		}}},
	}
}

func judge(t testing.TB, binary string, b *bootstrapv3.Bootstrap) {
	b.Node = &corev3.Node{Id: "validate", Cluster: "validate"}
	text, err := bootstrap.Marshal(b)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "envoy.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	out, err := exec.Command(binary, "--mode", "validate", "-c", file, "--log-level", "error").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
