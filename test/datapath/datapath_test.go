// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
)

var vip = netip.MustParseAddrPort("10.96.0.9:80")

func TestMeshTraffic(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	server := m.nodes[1].newMember("server", false)
	server.greet(8080)
	m.service("web", vip, 8080, server)
	t.Run("by VIP to another node, with another target port", func(t *testing.T) {
		requireHello(t, client, vip.String(), "server sees "+client.addr.String())
	})
}
