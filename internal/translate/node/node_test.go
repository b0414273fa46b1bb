// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

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

// cases are all that an agent makes, by the name of the golden file.
var cases = map[string]func() []proto.Message{
	"static": func() []proto.Message {
		return translatetest.Messages(StaticClusters(bootstrap.DefaultMaxConnections, testMark))
	},
	"pod": func() []proto.Message { return translatetest.Messages(Listeners(dualStack)) },
	"pod-ports": func() []proto.Message {
		p := strict
		p.Except = []uint16{8080, 9090}
		return translatetest.Messages(Listeners(p))
	},
	"pod-neighbours": func() []proto.Message {
		p := dualStack
		p.Neighbours = true
		return append(translatetest.Messages(Listeners(p)[:1]), ToNeighbours(p, testMark))
	},
	"pod-strict": func() []proto.Message { return translatetest.Messages(Listeners(strict)) },
}

func TestGolden(t *testing.T) { translatetest.Golden(t, "testdata", cases, translatetest.List) }

// TestEnvoyAcceptsGoldens shows every case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			o := bootstrap.Options{}
			if name != "static" {
				o.Clusters = StaticClusters(bootstrap.DefaultMaxConnections, testMark)
			}
			for _, m := range build() {
				switch m := m.(type) {
				case *listenerv3.Listener:
					o.Listeners = append(o.Listeners, m)
				case *clusterv3.Cluster:
					o.Clusters = append(o.Clusters, m)
				}
			}
			translatetest.Validate(t, binary, o)
		})
	}
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
		require.Equal(t, l.Name == prefixInbound+strict.UID, changed,
			"strictness changes the plaintext listener and no other")
	}
	require.Empty(t, Listeners(Pod{UID: "u"}), "a pod without an address")
}
