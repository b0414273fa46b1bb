// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/eventually"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// listensIn waits until a proxy listens in pods.
func (p *proxy) listensIn(pods ...*pod) *admin.Envoy {
	p.t.Helper()
	process := admin.New(p.admin)
	p.t.Cleanup(process.Close)
	eventually.Passes(p.t, "the proxy listens in all pods", func(look require.TestingT) {
		listening, err := process.Listening(p.t.Context())
		require.NoError(look, err)
		for _, pod := range pods {
			for _, name := range translatenode.ListenerNames("uid-" + pod.name) {
				require.True(look, listening[name], name)
			}
		}
	})
	return process
}

// TestProxiesAreReplaced: another proxy takes the connections that come, while both have the listeners and while the
// former closes its own; the former keeps what is open, for longer than its drain time, and ends what a new guard
// refuses.
func TestProxiesAreReplaced(t *testing.T) {
	m := newMesh(t)
	alice, bob, server := m.nodes[0].newMember("alice", true), m.nodes[0].newMember("bob", true),
		m.nodes[1].newMember("server", true)
	pods := [][]*pod{{alice, bob}, {server}}
	server.greet(8080)
	server.workload(8080)
	server.enforced(guardOf())
	to := server.at(8080).String()
	kept, refused := alice.session(to), bob.session(to)

	const callers = 8
	var asked atomic.Int64
	load, stop := new(errgroup.Group), make(chan struct{})
	for range callers {
		load.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if _, err := alice.hello(to); err != nil {
					return err
				}
				asked.Add(1)
			}
		})
	}
	more := func() {
		was := asked.Load()
		eventually.True(t, "connections come", func() bool { return asked.Load() > was+100 })
	}
	const rounds = 4
	first := []*proxy{m.nodes[0].proxy, m.nodes[1].proxy}
	for round := range rounds {
		for i, n := range m.nodes {
			former := n.proxy.listensIn(pods[i]...)
			n.proxy = startProxy(t, n)
			n.proxy.listensIn(pods[i]...)
			more()
			for _, p := range pods[i] {
				_, err := new(kernel.Kernel).MigrateQueues(p.ns.Path(), "1")
				require.NoError(t, err)
			}
			require.NoError(t, former.CloseListeners(t.Context()))
			more()
			if round > 0 {
				eventually.True(t, "none of the former's connections is left", func() bool {
					open, err := former.Connections(t.Context())
					return err == nil && open.Open == 0
				})
			}
		}
	}
	close(stop)
	require.NoError(t, load.Wait(), "after %d connections", asked.Load())
	t.Logf("none of %d connections failed while listeners closed %d times", asked.Load(), 2*rounds)

	for _, s := range []*session{kept, refused} {
		s.alive()
	}
	for i, p := range first {
		open, err := p.listensIn().Connections(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, open.Open, "the proxy of %s", m.nodes[i].name)
	}
	server.enforced(guardOf(denies("bob", from(bob))))
	require.NoError(t, refused.endsBefore(time.Now().Add(soon)))
	kept.alive()
}
