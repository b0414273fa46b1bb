// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/netip"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

var (
	web = model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	db  = model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
)

// cases by the name of the golden file. What is in all listeners is printed once: here, and nowhere else.
var cases = map[string]func() *listenerv3.Listener{
	"mtls": func() *listenerv3.Listener {
		return MTLSListener(model.Waypoint{
			Identity: "spiffe://cluster.local/ns/shop/sa/waypoint",
			Listen:   []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()},
			Headers:  model.HeaderLimits{KiB: 1024, Count: 10000},
			Ports: []model.ServedPort{
				{ServicePort: db, Protocol: model.ProtocolTCP},
				{ServicePort: web, Protocol: model.ProtocolHTTP},
			},
		})
	},
	"tunnel": TunnelListener,
}

func TestGolden(t *testing.T) {
	translatetest.Golden(t, "testdata", cases, func(t testing.TB, l *listenerv3.Listener) []byte {
		return translatetest.Sections(t, map[string]any{"listeners": translatetest.Messages([]*listenerv3.Listener{l})})
	})
}

// TestEnvoyAcceptsGoldens shows every golden case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			l := build()
			require.NoError(t, envoy.Check(l))
			translatetest.Validate(t, binary, bootstrap.Options{Listeners: []*listenerv3.Listener{l}})
		})
	}
}
