// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// TestEnvoyAcceptsGoldens shows every golden case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) { validate(t, binary, build()) })
	}
}

// TestEnvoyAcceptsAnything shows a real Envoy what comes of models that no ingest would make: what passes our own check
// must pass Envoy's.
func TestEnvoyAcceptsAnything(t *testing.T) {
	binary := xdstest.Binary(t)
	var b bundle
	for seed := range uint64(400) {
		g := &generator{rand.New(rand.NewPCG(seed, 3))}
		table := g.table()
		table.Port.Service = fmt.Sprintf("web-%d", seed)
		rc, _ := RouteConfiguration(trustDomain, table)
		b.routes = append(b.routes, rc)
	}
	validate(t, binary, b)
}

// validate runs Envoy in validation mode. What would come by RDS and EDS stands inline instead.
func validate(t *testing.T, binary string, b bundle) {
	t.Helper()
	o := bootstrap.Options{ID: "test", Cluster: "test", Listeners: b.listeners}
	for _, c := range b.clusters {
		o.Clusters = append(o.Clusters, withoutADS(t, c))
	}
	for _, rc := range b.routes {
		o.Listeners = append(o.Listeners, inline(t, rc))
	}
	for _, cla := range b.endpoints {
		c := withoutADS(t, Cluster(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP}, waypointID, headers))
		c.Name = cla.GetClusterName()
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.EdsClusterConfig = nil
		c.LoadAssignment = cla
		o.Clusters = append(o.Clusters, c)
	}
	config, err := bootstrap.Marshal(bootstrap.Bootstrap(o))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "--mode", "validate", "-l", "error", "--use-dynamic-base-id", "-c", file).CombinedOutput(); err != nil {
		t.Errorf("Envoy refuses: %v\n%s", err, out)
	}
}

// inline is a listener with a route configuration inside.
func inline(t *testing.T, rc *routev3.RouteConfiguration) *listenerv3.Listener {
	t.Helper()
	l := TrialListener()
	hcm := httpManager(headers)
	rc = proto.CloneOf(rc)
	rc.ValidateClusters = envoy.Bool(false) // as by RDS
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc}
	l.Name = "inline/" + rc.GetName()
	l.FilterChains[0].Filters = []*listenerv3.Filter{envoy.NetworkFilter(filterHTTPManager, hcm)}
	return l
}

// withoutADS has its secrets from a stream of their own. Envoy makes static clusters before its aggregated stream, and
// crashes if one refers to it; ours come over that stream.
func withoutADS(t *testing.T, c *clusterv3.Cluster) *clusterv3.Cluster {
	t.Helper()
	j, err := protojson.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := &clusterv3.Cluster{}
	j = regexp.MustCompile(`"ads": ?\{\}`).ReplaceAll(j, []byte(
		`"apiConfigSource":{"apiType":"GRPC","transportApiVersion":"V3","grpcServices":[{"envoyGrpc":{"clusterName":"`+bootstrap.ClusterXDS+`"}}]}`))
	if err := protojson.Unmarshal(j, out); err != nil {
		t.Fatal(err)
	}
	return out
}
