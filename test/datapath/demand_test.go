// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestDeadAddressesCostLittle has a pod dial many addresses where nobody is. What each takes to be tried is given back;
// what stays is the address, as long as the proxy lives.
func TestDeadAddressesCostLittle(t *testing.T) {
	const many, most = 500, 64 << 10
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	plain := m.nodes[1].newPod("plain") // nothing listens in it
	address := func(i int) string { return plain.at(uint16(20000 + i)).String() }
	for i := range many {
		m.destination(model.Destination{Address: addrPort(address(i)), Kind: model.DestinationPassthrough})
	}
	before := m.nodes[0].proxy.allocated()
	g := errgroup.Group{}
	for i := range many {
		g.Go(func() error {
			if have, err := client.hello(address(i)); err == nil {
				return fmt.Errorf("nobody answers %q", have)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	eventually.Passes(t, "an address costs little", func(look require.TestingT) {
		require.Less(look, (m.nodes[0].proxy.allocated()-before)/many, most)
	})
}

// allocated is the memory that the proxy uses, in bytes.
func (p *proxy) allocated() int {
	p.t.Helper()
	page, err := p.ask("/memory")
	require.NoError(p.t, err)
	var have struct{ Allocated string }
	require.NoError(p.t, json.Unmarshal([]byte(page), &have))
	n, err := strconv.Atoi(have.Allocated)
	require.NoError(p.t, err)
	return n
}
