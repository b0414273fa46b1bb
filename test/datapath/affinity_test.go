// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestClientIPAffinity: a pod's connections go to one endpoint of the Service, in the mesh or outside, and those of
// different pods are spread.
func TestClientIPAffinity(t *testing.T) {
	m := newMesh(t)
	servers := []*pod{
		m.nodes[1].newMember("member-1", false), m.nodes[1].newMember("member-2", false),
		m.nodes[0].newPod("plain-1"), m.nodes[1].newPod("plain-2"),
	}
	var identities []string
	for _, s := range servers {
		s.greet(8080)
		if s.identity != "" {
			identities = append(identities, s.identity)
		}
	}
	vip := addrPort("10.96.0.9:80")
	m.service("web", vip, 8080, servers...)
	m.destination(model.Destination{
		Address: vip, Kind: model.DestinationService, ClientIP: true, Identities: identities,
		Port: model.ServicePort{Namespace: "default", Service: "web", Port: vip.Port()},
	})
	seen := map[string]int{}
	for n := range 8 {
		client := m.nodes[n%2].newMember(fmt.Sprint("client-", n), false)
		var first string
		for range 6 {
			said, err := client.hello(vip.String())
			require.NoError(t, err)
			server, _, _ := strings.Cut(said, " ")
			if first == "" {
				first = server
				seen[server]++
			}
			require.Equal(t, first, server, "%s moved", client.name)
		}
	}
	require.Greater(t, len(seen), 1, "all clients have one server: %v", seen)
}
