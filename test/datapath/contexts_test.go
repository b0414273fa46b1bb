// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestManyIdentitiesDontFillTheProxy has many identities dial the same addresses. Envoy keeps something for each of
// them in each address, and that is bounded: nobody loses an address for it, nor a connection.
func TestManyIdentitiesDontFillTheProxy(t *testing.T) {
	const (
		identities, addresses = 8, 40
		room                  = 72  // addresses, at two units each
		taken                 = 100 // units: a pod's address is two, and one of a Service three
		context               = 16 << 10
	)
	m := newMesh(t)
	n := m.nodes[0]
	agent := n.behindAgent(1000, room)
	server := m.nodes[1].newMember("server", true)
	var address []string
	for i := range addresses {
		port := uint16(8000 + i)
		server.greet(port)
		if i%2 == 0 {
			server.workload(port)
			address = append(address, server.at(port).String())
			continue
		}
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 1, byte(i)}), 80)
		m.service(fmt.Sprint("service-", i), vip, port, server)
		address = append(address, vip.String())
	}
	victim := n.newMember("victim", false)
	pods := []*pod{victim}
	for i := range identities {
		pods = append(pods, n.newMember(fmt.Sprint("hog-", i), false))
	}
	var open []*session
	for i := range addresses {
		requireHello(t, victim, address[i], "server sees "+victim.addr.String())
		if i%10 == 0 {
			open = append(open, victim.session(address[i]))
		}
	}
	dialAll := func() {
		var g errgroup.Group
		for _, p := range pods {
			g.Go(func() error {
				for i := range addresses {
					if _, err := p.hello(address[i]); err != nil {
						return fmt.Errorf("%s dials %s: %w", p.name, address[i], err)
					}
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
	}
	sharing(t, agent, func() {
		if agent.Unsure(len(pods)) {
			for _, p := range pods {
				list, err := capture.Dialled(p.ns)
				require.NoError(t, err)
				when := map[string]time.Time{}
				for _, d := range list {
					when[d.To.String()] = d.At
				}
				agent.DialledBy(p.identity, when)
			}
			agent.Forget()
		}
	})
	before := n.proxy.allocated()
	for range 2 {
		dialAll()
	}
	most := (room*2 - taken) * context
	eventually.NoError(t, "what the identities cost is bounded", func() error {
		if have := n.proxy.allocated() - before; have > most {
			return fmt.Errorf("%d identities cost %d KB, and %d KB are enough", identities, have>>10, most>>10)
		}
		return nil
	})
	for _, s := range open {
		s.alive()
	}
	dialAll()
	require.False(t, agent.Short(), "nobody lost an address")
}
