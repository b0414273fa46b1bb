// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"net/netip"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

var (
	vip = netip.MustParseAddrPort("10.96.0.9:80")
	web = model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	ids = []string{"spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"}
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// nodeCases are all that node proxies are answered, by the name of the golden file.
var nodeCases = map[string]func() []proto.Message{
	"destination-service": func() []proto.Message {
		return []proto.Message{Destination(
			model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: ids})}
	},
	"destination-client-ip": func() []proto.Message {
		return []proto.Message{Destination(
			model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, ClientIP: true})}
	},
	"destination-by-caller": func() []proto.Message {
		return []proto.Message{Destination(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, Callers: []string{"other", "shop"},
			Waypoint: ids[0],
		})}
	},
	"destination-by-caller-client-ip": func() []proto.Message {
		return []proto.Message{Destination(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, ClientIP: true, Callers: []string{"shop"},
			Waypoint: ids[0],
		})}
	},
	"endpoints-by-caller": func() []proto.Message {
		return []proto.Message{NodeEndpoints(names.CallerEndpoints("shop", "web", 80, false, nil), []model.Endpoint{
			{Address: at("10.244.0.3:8080"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.4:8080"), Zone: "b"},
			{Address: at("10.244.0.9:15008"), MTLS: true, Callers: []string{"other", "shop"}},
		})}
	},
	"endpoints-by-caller-absent": func() []proto.Message {
		return []proto.Message{NodeEndpoints(names.CallerEndpoints("shop", "web", 80, false, nil), []model.Endpoint{
			{Address: at("10.244.0.3:8080"), MTLS: true}, {Callers: []string{"other"}, Absent: true},
		})}
	},
	"destination-waypoint": func() []proto.Message {
		return []proto.Message{Destination(model.Destination{
			Address: vip, Kind: model.DestinationWaypoint,
			Port: model.ServicePort{Namespace: "shop", Service: "waypoint", Port: 15008}, Service: web, Identities: ids[:1],
		})}
	},
	"destination-many-identities": func() []proto.Message {
		var all []string
		for _, ns := range []string{"a", "ab", "shop"} {
			for n := range 10 {
				all = append(all, names.SPIFFEID("cluster.local", ns, fmt.Sprint("account-", n)))
			}
		}
		return []proto.Message{Destination(
			model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: all})}
	},
	"destination-workload": func() []proto.Message {
		return []proto.Message{Destination(
			model.Destination{Address: at("10.244.0.3:8080"), Kind: model.DestinationWorkload, Identities: ids[:1]})}
	},
	"destination-passthrough": func() []proto.Message {
		return []proto.Message{Destination(
			model.Destination{Address: at("[fd00:244::9]:5432"), Kind: model.DestinationPassthrough})}
	},
	"destination-refused": func() []proto.Message {
		return []proto.Message{Destination(model.Destination{Address: vip, Kind: model.DestinationRefused})}
	},
	"endpoints": func() []proto.Message {
		return []proto.Message{NodeEndpoints("node/shop/web/80", []model.Endpoint{
			{Address: at("10.244.0.4:8080"), Zone: "b"},
			{Address: at("10.244.0.3:8080"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.3:8081"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.5:8080"), MTLS: true, Zone: "a", Draining: true},
			{Address: at("[fd00:244::3]:8080"), MTLS: true, Zone: "b"},
		})}
	},
	"endpoints-all-draining": func() []proto.Message {
		return []proto.Message{NodeEndpoints("node/shop/web/80", []model.Endpoint{
			{Address: at("10.244.0.5:8080"), MTLS: true, Draining: true},
		})}
	},
	"endpoints-fewer": func() []proto.Message {
		list := many(5)
		for n := range list[:3] {
			list[n].Distance = uint8(n)
		}
		for n := range 3 {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 245, 0, byte(n)}), 15008)
			list = append(list, model.Endpoint{Address: at, MTLS: true, Callers: []string{"other"}, Draining: n > 0})
		}
		packed := envoy.Any(NodeEndpoints(names.CallerEndpoints("shop", "web", 80, false, nil), list))
		fewer, err := FewerEndpoints(packed, 4, "node-1")
		if err != nil {
			panic(err)
		}
		m, err := fewer.UnmarshalNew()
		if err != nil {
			panic(err)
		}
		return []proto.Message{m}
	},
	"endpoints-none": func() []proto.Message { return []proto.Message{NodeEndpoints("node/shop/web/80", nil)} },
}

func TestNodeGolden(t *testing.T) {
	translatetest.Golden(t, "testdata/node", nodeCases, translatetest.List)
}

// TestEnvoyAcceptsNodeGoldens shows every case to a real Envoy.
func TestEnvoyAcceptsNodeGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range nodeCases {
		t.Run(name, func(t *testing.T) {
			o := bootstrap.Options{Clusters: []*clusterv3.Cluster{Direct(bootstrap.DefaultMaxConnections, unmarked())}}
			for _, m := range build() {
				switch m := m.(type) {
				case *clusterv3.Cluster:
					valid(t, m)
					o.Clusters = append(o.Clusters, translatetest.WithoutADS(t, m))
				case *endpointv3.ClusterLoadAssignment:
					invariants(t, m)
					c := Destination(model.Destination{Address: vip, Kind: model.DestinationPassthrough})
					c.LoadAssignment = m
					o.Clusters = append(o.Clusters, translatetest.WithoutADS(t, c))
				}
			}
			translatetest.Validate(t, binary, o)
		})
	}
}

func TestDestinationWithoutIdentitiesTrustsNobody(t *testing.T) {
	c := Destination(model.Destination{Address: vip, Kind: model.DestinationService, Port: web})
	j, err := protojson.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(j), "spiffe://none")
}
