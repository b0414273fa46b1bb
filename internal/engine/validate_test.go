// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"os/exec"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
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
		o.Clusters = append(o.Clusters, translatetest.WithoutADS(t, as[*clusterv3.Cluster](t, r)))
	}
	for _, r := range cache.List(scope, xds.TypeRoute) {
		o.Listeners = append(o.Listeners, translatetest.Inline(as[*routev3.RouteConfiguration](t, r), route.Filters()))
	}
	translatetest.Validate(t, binary, o)
}

func as[M proto.Message](t testing.TB, r *xds.Resource) M {
	m, err := r.Any().UnmarshalNew()
	require.NoError(t, err)
	return m.(M)
}
