// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

const (
	trustDomain = "cluster.local"
	waypointID  = "spiffe://cluster.local/ns/shop/sa/waypoint"
)

var (
	webV1   = model.ServicePort{Namespace: "shop", Service: "web-v1", Port: 8080}
	db      = model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	webV2   = model.ServicePort{Namespace: "shop", Service: "web-v2", Port: 8080}
	headers = model.HeaderLimits{KiB: 1024, Count: 10000}
)

// bundle is what a case of a waypoint gives.
type bundle struct {
	clusters  []*clusterv3.Cluster
	endpoints []*endpointv3.ClusterLoadAssignment
}

// waypointCases by the name of the golden file.
var waypointCases = map[string]func() bundle{
	"service-ports": servicePortsCase, "endpoints": endpointsCase, "policies": policiesCase,
	"backend-tls": backendTLSCase, "external": externalCase,
}

func backendTLSCase() bundle {
	at := netip.MustParseAddrPort
	id := "spiffe://cluster.local/ns/shop/sa/web"
	system := &model.BackendTLS{Hostname: "app.example.org", Hosts: []string{"app.example.org"}, System: true}
	named := &model.BackendTLS{
		Hostname: "app.example.org", Hosts: []string{"*.example.org"}, URIs: []string{"spiffe://example.org/app"},
		System: true,
	}
	return bundle{
		clusters: []*clusterv3.Cluster{
			TLSPort(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, TLS: system}, headers),
			TLSPort(model.Upstream{ServicePort: webV1, Protocol: model.ProtocolHTTP2, TLS: named}, headers),
			TLSPort(model.Upstream{ServicePort: webV2, TLS: &model.BackendTLS{Refused: true}}, headers),
			Tunnel(waypointID),
		},
		endpoints: []*endpointv3.ClusterLoadAssignment{TLSEndpoints(web, []model.Endpoint{
			{Address: at("10.244.0.3:8443"), MTLS: true, Identity: id, Zone: "a"},
			{Address: at("10.244.0.3:8444"), MTLS: true, Identity: id, Zone: "a"},
			{Address: at("[fd00::3]:8443"), MTLS: true, Identity: id, Zone: "a", Draining: true},
			{Address: at("10.244.0.4:8443"), MTLS: true, Zone: "a"},
			{Address: at("192.0.2.4:8443"), Zone: "a"},
		})},
	}
}

func servicePortsCase() bundle {
	mine := []string{"spiffe://cluster.local/ns/shop/sa/old-web", "spiffe://cluster.local/ns/shop/sa/web"}
	pinned := model.Upstream{ServicePort: db, Protocol: model.ProtocolTCP, ClientIP: true}
	return bundle{
		clusters: []*clusterv3.Cluster{
			ServicePort(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Identities: mine}, waypointID, headers),
			ServicePort(pinned, waypointID, headers),
			Inbound(pinned, waypointID, headers),
			ServicePort(model.Upstream{ServicePort: webV1, Protocol: model.ProtocolHTTP}, waypointID, headers),
			ServicePort(model.Upstream{ServicePort: webV2, Protocol: model.ProtocolHTTP2}, waypointID,
				model.HeaderLimits{KiB: 64, Count: 50}),
		},
	}
}

func endpointsCase() bundle {
	at := netip.MustParseAddrPort
	id := "spiffe://cluster.local/ns/shop/sa/web"
	return bundle{endpoints: []*endpointv3.ClusterLoadAssignment{
		WaypointEndpoints(web, []model.Endpoint{
			{Address: at("10.244.1.3:8080"), MTLS: true, Identity: id, Zone: "b"},
			{Address: at("10.244.0.3:8080"), MTLS: true, Identity: id, Zone: "a"},
			{Address: at("10.244.0.4:8080"), Zone: "a"},
			{Address: at("[fd00::3]:8080"), MTLS: true, Identity: id, Zone: "a"},
			{Address: at("10.244.0.5:8080"), MTLS: true, Identity: id, Zone: "a", Draining: true},
		}),
		WaypointEndpoints(webV1, []model.Endpoint{
			{Address: at("10.244.0.5:8080"), MTLS: true, Identity: id, Draining: true},
		}),
		WaypointEndpoints(webV2, nil),
	}}
}

func TestWaypointGolden(t *testing.T) {
	translatetest.Golden(t, "testdata/waypoint", waypointCases, func(t testing.TB, b bundle) []byte {
		out := map[string]any{}
		if b.clusters != nil {
			out["clusters"] = translatetest.Messages(b.clusters)
		}
		if b.endpoints != nil {
			out["endpoints"] = translatetest.Messages(b.endpoints)
		}
		return translatetest.Sections(t, out)
	})
}

// TestEnvoyAcceptsWaypointGoldens shows every case to a real Envoy. What would come by EDS stands inline instead.
func TestEnvoyAcceptsWaypointGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range waypointCases {
		t.Run(name, func(t *testing.T) {
			b, o := build(), bootstrap.Options{}
			for _, c := range b.clusters {
				valid(t, c)
				o.Clusters = append(o.Clusters, translatetest.WithoutADS(t, c))
			}
			for _, cla := range b.endpoints {
				invariants(t, cla)
				web := model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP}
				c := translatetest.WithoutADS(t, ServicePort(web, waypointID, headers))
				c.Name = cla.GetClusterName()
				c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
				c.EdsClusterConfig = nil
				c.LoadAssignment = cla
				o.Clusters = append(o.Clusters, c)
			}
			translatetest.Validate(t, binary, o)
		})
	}
}

func valid(t testing.TB, m envoy.Message) {
	t.Helper()
	if err := envoy.Check(m); err != nil {
		t.Error(err)
	}
}

// invariants hold for all endpoints.
func invariants(t testing.TB, a *endpointv3.ClusterLoadAssignment) {
	t.Helper()
	valid(t, a)
	next := uint32(0)
	for _, l := range a.GetEndpoints() {
		if l.GetPriority() > next {
			t.Errorf("%s: priority %d comes with none before it", a.GetClusterName(), l.GetPriority())
		}
		next = l.GetPriority() + 1
	}
}

func TestWaypointEndpointsIgnoreOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var in []model.Endpoint
	for i := range 40 {
		in = append(in, model.Endpoint{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 8), byte(i)}), 80),
			Zone:    string(rune('a' + i%3)), MTLS: i%2 == 0, Draining: i%5 == 0,
		})
	}
	want := WaypointEndpoints(web, in)
	invariants(t, want)
	for range 20 {
		r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		if !proto.Equal(want, WaypointEndpoints(web, in)) {
			t.Fatal("the order of endpoints matters")
		}
	}
}
