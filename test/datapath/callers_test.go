// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestOnlyTheRoutesCallersDependOnItsWaypoint: a Service of which only routes of another namespace make a waypoint is
// reached through it from there, and straight from everywhere else; the waypoint's absence refuses the former and
// nobody else.
func TestOnlyTheRoutesCallersDependOnItsWaypoint(t *testing.T) {
	m := newMesh(t)
	waypoint := m.nodes[1].newForger("waypoint")
	waypoint.serve()
	servers := []*pod{m.nodes[1].newMember("server", false), m.nodes[1].newPod("plain")}
	for _, p := range servers {
		p.greet(8080)
	}
	client := m.nodes[0].newMember("client", false)
	consumer := m.nodes[0].newPod("consumer")
	consumer.namespace = "shopper"
	consumer.join(false)

	callers := []string{"another", "shopper"}
	through := model.Endpoint{Address: waypoint.at(names.PortMTLS), MTLS: true, Callers: callers}
	absent := model.Endpoint{Callers: callers, Absent: true}
	for n, clientIP := range []bool{false, true} {
		t.Run(fmt.Sprint("sticky ", clientIP), func(t *testing.T) {
			vip := netip.AddrPortFrom(netip.MustParseAddr("10.96.0.9"), uint16(80+n))
			name := fmt.Sprint("web-", n)
			m.service(name, vip, 8080, servers...)
			d := model.Destination{
				Address: vip, Kind: model.DestinationService, Port: model.ServicePort{
					Namespace: "default", Service: name,
					Port: vip.Port(),
				},
				Identities: []string{servers[0].identity}, ClientIP: clientIP, Callers: callers, Waypoint: waypoint.identity(),
			}
			assignment := names.CallerEndpoints("default", name, vip.Port(), false, callers)
			leads := func(to model.Endpoint) {
				m.apply(m.nodes[0].scope(), assignment, upstream.NodeEndpoints(assignment, []model.Endpoint{
					{Address: servers[0].at(8080), MTLS: true}, {Address: servers[1].at(8080)}, to,
				}))
			}
			straight := func() {
				t.Helper()
				for range 10 {
					said, err := client.hello(vip.String())
					require.NoError(t, err)
					require.NotContains(t, said, name)
				}
			}
			leads(through)
			m.destination(d)
			for range 10 {
				requireHello(t, consumer, vip.String(), fmt.Sprintf("%d.%s.default sees %s", vip.Port(), name, consumer.addr))
			}
			straight()

			leads(absent)
			m.nodes[0].acked(xds.TypeEndpoint, assignment)
			requireRefused(t, consumer, vip.String())
			straight()

			leads(through)
			m.nodes[0].acked(xds.TypeEndpoint, assignment)
			requireHello(t, consumer, vip.String(), fmt.Sprintf("%d.%s.default sees %s", vip.Port(), name, consumer.addr))

			// Who has the address of a waypoint must be that waypoint.
			d.Waypoint = names.SPIFFEID(trustDomain, "default", "else")
			m.destination(d)
			m.nodes[0].acked(xds.TypeCluster, vip.String())
			requireRefused(t, consumer, vip.String())
			straight()
		})
	}
}
