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
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestAddressesOfPodsThatAreGoneAreForgotten dials the addresses of pods that come and go, hour after hour. What the
// proxy has of them doesn't grow but for their names, and an address that another pod has answers at once.
func TestAddressesOfPodsThatAreGoneAreForgotten(t *testing.T) {
	const (
		hours, each = 4, 300
		most        = 1500 // bytes for each address that is forgotten
	)
	m := newMesh(t)
	n := m.nodes[0]
	now := clocktesting.NewFakePassiveClock(time.Now())
	agent := n.behindAgentAt(now, 1000, 2*each)
	client := n.newMember("client", false)
	server := m.nodes[1].newPod("server")
	address := func(hour, i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(100 + hour), byte(i >> 8)}), uint16(1000+i))
	}
	dialAll := func(hour int) {
		for i := range each {
			m.destination(model.Destination{Address: address(hour, i), Kind: model.DestinationRefused})
		}
		var g errgroup.Group
		g.SetLimit(16)
		for i := range each {
			g.Go(func() error {
				began := time.Now()
				if have, err := client.hello(address(hour, i).String()); err == nil {
					return fmt.Errorf("nobody answers %q", have)
				}
				if took := time.Since(began); took > patience/2 {
					return fmt.Errorf("%s refuses after %s", address(hour, i), took)
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
	}
	look := func(later time.Duration) {
		now.SetTime(now.Now().Add(later))
		agent.Forget()
	}
	before := n.proxy.allocated()
	for hour := range hours {
		dialAll(hour)
		held := n.proxy.allocated()
		look(names.DialledTime / 2)
		require.False(t, agent.Short())
		look(names.DialledTime)
		var have int
		eventually.NoError(t, "addresses are forgotten", func() error {
			if have = n.proxy.allocated(); have-before > (hour+1)*each*most {
				return fmt.Errorf("%d KB more than before the first hour", (have-before)>>10)
			}
			return nil
		})
		t.Logf("%d addresses: %d KB, %d of them for those of the last hour while it lasts", (hour+1)*each, (held-before)>>10,
			(held-have)>>10)
	}

	// Who dials one of them while it leads nowhere waits, once; then it is seen.
	lost := address(0, 1)
	agent.DialledBy(client.identity, map[string]time.Time{lost.String(): now.Now().Add(time.Second)})
	eventually.NoError(t, "refused at once again", func() error {
		began := time.Now()
		_, err := client.hello(lost.String())
		require.Error(t, err)
		if took := time.Since(began); took > patience/4 {
			return fmt.Errorf("refused after %s", took)
		}
		return nil
	})

	// When another pod has one of them nobody waits.
	found := server.at(8000)
	m.destination(model.Destination{Address: found, Kind: model.DestinationRefused})
	requireRefused(t, client, found.String())
	look(2 * names.DialledTime)
	server.greet(8000)
	m.destination(model.Destination{Address: found, Kind: model.DestinationPassthrough})
	eventually.NoError(t, "another pod answers", func() error {
		began := time.Now()
		_, err := client.hello(found.String())
		require.Less(t, time.Since(began), patience/4, "whether Envoy has heard of it or not")
		return err
	})
}
