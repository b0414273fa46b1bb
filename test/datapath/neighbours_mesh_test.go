// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/neighbours"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// newNeighbourMesh is a mesh whose nodes lead connections between their own pods through the proxy once.
func newNeighbourMesh(t testing.TB) *mesh {
	m := newMesh(t)
	m.neighbours = true
	for _, n := range m.nodes {
		n.keepNeighbours()
	}
	return m
}

// keepNeighbours starts a keeper that knows no pods, as an agent does that has just started.
func (n *meshNode) keepNeighbours() (stop func()) {
	t := n.mesh.t
	k := neighbours.New(n, n.mark, testr.NewWithInterface(t, testr.Options{}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	n.near.Store(k)
	return stop
}

// captured tells the node's keeper of neighbours, if there is one.
func (p *pod) captured() {
	if k := p.node.near.Load(); k != nil {
		k.Captured(p.spec(false))
	}
}

// say is what the node's agent does with what the operator says.
func (m *mesh) say(scope xds.Scope, r *xds.Resource) {
	for _, n := range m.nodes {
		if k := n.near.Load(); k != nil && n.scope() == scope {
			defer k.Ahead(context.Background(), []xds.ID{{TypeURL: r.TypeURL(), Name: r.Name()}})()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	types := m.said[scope]
	if types == nil {
		types = map[string]map[string]*xds.Resource{}
		m.said[scope] = types
	}
	if types[r.TypeURL()] == nil {
		types[r.TypeURL()] = map[string]*xds.Resource{}
	}
	types[r.TypeURL()][r.Name()] = r
	m.cache.Apply(scope, []xds.Update{xds.Set(r)})
}

// Current implements neighbours.Proxy, as the others do.
func (n *meshNode) Current(typeURL string) map[string]*xds.Resource {
	n.mesh.mu.Lock()
	defer n.mesh.mu.Unlock()
	return maps.Clone(n.mesh.said[n.scope()][typeURL])
}

func (n *meshNode) SetLocal(typeURL string, updates []xds.Update) {
	for i := range updates {
		updates[i].TypeURL = typeURL
	}
	n.mesh.cache.Apply(n.scope(), updates)
}

func (n *meshNode) WaitSettled(ctx context.Context, id xds.ID) error {
	for {
		s := n.server.State(n.scope().Key(id.TypeURL, id.Name))
		if why := s.Rejection(); why != "" {
			return errors.New(why)
		}
		if s.Settled() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// isNear waits until the proxy knows that a way leads to neighbours.
func (w way) isNear(t testing.TB) {
	t.Helper()
	n, address := w.from.node, w.address.String()
	if c, err := w.from.dial(address); err == nil { // the proxy asks for it
		_ = c.Close()
	}
	eventually.Passes(t, address+" leads to neighbours", func(look require.TestingT) {
		require.Contains(look, n.near.Load().Ways(), address)
	})
	n.acked(xds.TypeExtension, names.Neighbours)
}
