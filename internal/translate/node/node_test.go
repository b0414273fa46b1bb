// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

var (
	dualStack = Pod{
		UID: "0b9c", Namespace: "shop", Name: "cart-0", Netns: "/var/run/netns/cart",
		IPs:      []netip.Addr{netip.MustParseAddr("10.244.0.3"), netip.MustParseAddr("fd00:244::3")},
		Identity: "spiffe://cluster.local/ns/shop/sa/cart",
	}
	strict = func() Pod { p := dualStack; p.Strict = true; return p }()
	vip    = netip.MustParseAddrPort("10.96.0.9:80")
	web    = model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	// testMark is the same each time, for the golden files.
	testMark = proxymark.From(1, 2)
	ids      = []string{"spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"}
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// cases are all kinds of answers, by the name of their golden file.
var cases = map[string]func() []proto.Message{
	"static": func() []proto.Message {
		return messages(StaticClusters(bootstrap.DefaultMaxConnections, testMark))
	},
	"pod":        func() []proto.Message { return messages(Listeners(dualStack)) },
	"pod-strict": func() []proto.Message { return messages(Listeners(strict)) },
	"destination-service": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: ids})}
	},
	"destination-client-ip": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, ClientIP: true})}
	},
	"destination-by-caller": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, Callers: []string{"other", "shop"}, Waypoint: ids[0],
		})}
	},
	"destination-by-caller-client-ip": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{
			Address: vip, Kind: model.DestinationService, Port: web, Identities: ids, ClientIP: true, Callers: []string{"shop"}, Waypoint: ids[0],
		})}
	},
	"endpoints-by-caller": func() []proto.Message {
		return []proto.Message{LoadAssignment(names.CallerEndpoints("shop", "web", 80, false, nil), []model.Endpoint{
			{Address: at("10.244.0.3:8080"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.4:8080"), Zone: "b"},
			{Address: at("10.244.0.9:15008"), MTLS: true, Callers: []string{"other", "shop"}},
		})}
	},
	"endpoints-by-caller-absent": func() []proto.Message {
		return []proto.Message{LoadAssignment(names.CallerEndpoints("shop", "web", 80, false, nil), []model.Endpoint{
			{Address: at("10.244.0.3:8080"), MTLS: true}, {Callers: []string{"other"}, Absent: true},
		})}
	},
	"destination-waypoint": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{
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
		return []proto.Message{Cluster(model.Destination{Address: vip, Kind: model.DestinationService, Port: web, Identities: all})}
	},
	"destination-workload": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{Address: at("10.244.0.3:8080"), Kind: model.DestinationWorkload, Identities: ids[:1]})}
	},
	"destination-passthrough": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{Address: at("[fd00:244::9]:5432"), Kind: model.DestinationPassthrough})}
	},
	"destination-refused": func() []proto.Message {
		return []proto.Message{Cluster(model.Destination{Address: vip, Kind: model.DestinationRefused})}
	},
	"endpoints": func() []proto.Message {
		return []proto.Message{LoadAssignment("node/shop/web/80", []model.Endpoint{
			{Address: at("10.244.0.4:8080"), Zone: "b"},
			{Address: at("10.244.0.3:8080"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.3:8081"), MTLS: true, Zone: "a"},
			{Address: at("10.244.0.5:8080"), MTLS: true, Zone: "a", Draining: true},
			{Address: at("[fd00:244::3]:8080"), MTLS: true, Zone: "b"},
		})}
	},
	"endpoints-all-draining": func() []proto.Message {
		return []proto.Message{LoadAssignment("node/shop/web/80", []model.Endpoint{{Address: at("10.244.0.5:8080"), MTLS: true, Draining: true}})}
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
		packed := envoy.Any(LoadAssignment(names.CallerEndpoints("shop", "web", 80, false, nil), list))
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
	"endpoints-none": func() []proto.Message { return []proto.Message{LoadAssignment("node/shop/web/80", nil)} },
}

func messages[M proto.Message](in []M) []proto.Message {
	var out []proto.Message
	for _, m := range in {
		out = append(out, m)
	}
	return out
}

func TestGolden(t *testing.T) {
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			var docs []any
			for _, m := range build() {
				j, err := protojson.Marshal(m)
				require.NoError(t, err)
				var doc any
				require.NoError(t, json.Unmarshal(j, &doc))
				docs = append(docs, doc)
			}
			have, err := yaml.Marshal(docs)
			require.NoError(t, err)
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, have, 0o644))
				return
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "run the test with -update and read the difference")
			require.Equal(t, string(want), string(have))
		})
	}
}

// TestEnvoyAcceptsGoldens shows every case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			o := bootstrap.Options{ID: "test", Cluster: "test"}
			if name != "static" {
				o.Clusters = StaticClusters(bootstrap.DefaultMaxConnections, testMark)
			}
			for _, m := range build() {
				switch m := m.(type) {
				case *listenerv3.Listener:
					o.Listeners = append(o.Listeners, m)
				case *clusterv3.Cluster:
					o.Clusters = append(o.Clusters, withoutADS(t, m))
				case *endpointv3.ClusterLoadAssignment:
					c := Cluster(model.Destination{Address: vip, Kind: model.DestinationPassthrough})
					c.LoadAssignment = m
					o.Clusters = append(o.Clusters, withoutADS(t, c))
				}
			}
			config, err := bootstrap.Marshal(bootstrap.Bootstrap(o))
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "envoy.json")
			require.NoError(t, os.WriteFile(file, config, 0o600))
			out, err := exec.Command(binary, "--mode", "validate", "-l", "error", "--disable-hot-restart", "-c", file).CombinedOutput()
			require.NoError(t, err, string(out))
		})
	}
}

// withoutADS has what it fetches from a stream of its own: Envoy makes static clusters, which ours are here and never in
// life, before its aggregated stream.
func withoutADS(t *testing.T, c *clusterv3.Cluster) *clusterv3.Cluster {
	t.Helper()
	j, err := protojson.Marshal(c)
	require.NoError(t, err)
	j = regexp.MustCompile(`"ads": ?\{\}`).ReplaceAll(j, []byte(
		`"apiConfigSource":{"apiType":"GRPC","transportApiVersion":"V3","grpcServices":[{"envoyGrpc":{"clusterName":"`+bootstrap.ClusterXDS+`"}}]}`))
	out := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal(j, out))
	return out
}

func TestListenersDependOnTheirPodOnly(t *testing.T) {
	a, b := Listeners(dualStack), Listeners(dualStack)
	require.Len(t, a, 3)
	for i, name := range ListenerNames(dualStack.UID) {
		require.Equal(t, name, a[i].Name)
		require.True(t, proto.Equal(a[i], b[i]))
		require.Equal(t, envoy.Any(a[i]).Value, envoy.Any(b[i]).Value, "equal bytes")
	}
	for i, l := range Listeners(strict) {
		changed := !proto.Equal(l, a[i])
		require.Equal(t, l.Name == prefixInbound+strict.UID, changed, "strictness changes the plaintext listener and no other")
	}
	require.Empty(t, Listeners(Pod{UID: "u"}), "a pod without an address")
}

func TestClusterWithoutIdentitiesTrustsNobody(t *testing.T) {
	c := Cluster(model.Destination{Address: vip, Kind: model.DestinationService, Port: web})
	j, err := protojson.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(j), "spiffe://none")
}
