// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// everywhere is a pod that refuses plaintext at all ports.
func everywhere(uint16) bool { return true }

// TestModesOfPorts has a port that is strict in a permissive pod, and one that is permissive in a strict one, of both
// IP families. What changes ends the connections in plaintext that were let in by what was before, and no mTLS.
func TestModesOfPorts(t *testing.T) {
	m := newMesh(t)
	server := m.nodes[0].newMember("server", false)
	outsider, member := m.nodes[1].newPod("outsider"), m.nodes[1].newMember("member", false)
	const app, metrics = 8080, 9090
	addresses := append(server.others(), server.addr)
	for _, port := range []uint16{app, metrics} {
		server.greet(port)
		server.workload(port)
	}
	reaches := func(port uint16, plaintext bool) {
		t.Helper()
		for _, a := range addresses {
			to := netip.AddrPortFrom(a, port).String()
			if plaintext {
				outsider.reaches(t, to)
			} else {
				outsider.reachesNoMore(t, to)
				requireRefused(t, outsider, to)
			}
		}
		requireHello(t, member, server.at(port).String(), "server sees "+member.addr.String())
	}
	mtls := member.session(server.at(app).String())
	reaches(app, true)
	reaches(metrics, true)
	before := outsider.session(server.at(app).String())

	server.configure(false, app)
	reaches(app, false)
	reaches(metrics, true)
	_, err := capture.EndPlaintext(server.ns, server.node.mark, nil, func(port uint16) bool { return port == app })
	require.NoError(t, err) // how many is open: it may have drained, and others may still be ending
	before.ends()
	m.nodes[0].proxy.logged(map[string]any{"direction": "inbound-plaintext", "pod": "default/server"})
	scrape := outsider.session(server.at(metrics).String())
	server.configure(false, app, metrics)
	reaches(metrics, false)
	scrape.ends()
	server.configure(false, app)
	reaches(metrics, true)
	scrape = outsider.session(server.at(metrics).String())

	server.configure(true, metrics)
	reaches(app, false)
	reaches(metrics, true)
	scrape.ends() // it may come again
	scrape = outsider.session(server.at(metrics).String())

	server.configure(true)
	reaches(app, false)
	reaches(metrics, false)
	scrape.ends()

	server.configure(true, app)
	reaches(app, true)
	reaches(metrics, false)
	server.configure(false)
	reaches(metrics, true)
	mtls.alive()
}
