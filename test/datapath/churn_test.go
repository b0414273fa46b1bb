// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestFirstDialsUnderChurn makes Services under the eyes of their clients, moves older ones from pod to pod, and dials
// them all the time, new ones before the pods behind them have heard of them. Every connection must reach a server.
func TestFirstDialsUnderChurn(t *testing.T) {
	const (
		services = 50
		seed     = 7
	)
	m := newMesh(t)
	r := rand.New(rand.NewPCG(seed, seed))
	clients := []*pod{m.nodes[0].newMember("client0", false), m.nodes[1].newMember("client1", false)}
	var servers []*pod
	for i := range 4 {
		p := m.nodes[i%2].newMember(fmt.Sprintf("server%d", i), i < 2)
		p.greet(8080)
		servers = append(servers, p)
	}
	vip := func(i int) netip.AddrPort { return addrPort(fmt.Sprintf("10.96.1.%d:80", i+1)) }
	serve := func(i int, pods ...*pod) {
		port := model.ServicePort{Namespace: "default", Service: fmt.Sprintf("s%d", i), Port: 80}
		var endpoints []model.Endpoint
		var identities []string
		for _, p := range servers { // any of them may have the connection that was opened before a move
			identities = append(identities, p.identity)
		}
		for _, p := range pods {
			endpoints = append(endpoints, model.Endpoint{Address: p.at(8080), MTLS: true, Identity: p.identity})
		}
		m.endpoints(port, endpoints...)
		m.destination(model.Destination{Address: vip(i), Kind: model.DestinationService, Port: port, Identities: identities})
	}
	dial := func(g *errgroup.Group, client *pod, i int) {
		g.Go(func() error {
			if _, err := client.hello(vip(i).String()); err != nil {
				return fmt.Errorf("%s dials service %d: %w", client.name, i, err)
			}
			return nil
		})
	}
	for i := range services {
		var g errgroup.Group
		first := r.IntN(len(servers))
		pods := []*pod{servers[first], servers[(first+1)%len(servers)]}
		serve(i, pods...)
		for _, c := range clients {
			dial(&g, c, i)
		}
		if i > 0 {
			old := r.IntN(i)
			to := servers[r.IntN(len(servers))]
			serve(old, to)
			for _, c := range clients {
				dial(&g, c, old)
			}
		}
		require.NoError(t, g.Wait(), "round %d of seed %d", i, seed)
	}
}
