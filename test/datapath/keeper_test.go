// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"

	"github.com/go-logr/logr/testr"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// keep starts a keeper of the node's connections that knows none, as an agent does that has just started. The one before
// must have stopped.
func (n *meshNode) keep() (stop func()) {
	t := n.mesh.t
	n.keeper = connections.New(testr.NewWithInterface(t, testr.Options{}))
	n.counter.Open = n.keeper.Told
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.keeper.Run(ctx, nodeKernel{n}, n.mesh)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// accepted is what the relay tells the keeper.
func (n *meshNode) accepted(a xds.Ack) {
	if a.Error != "" || a.TypeURL != xds.TypeExtension {
		return
	}
	if r, ok := n.mesh.cache.Get(n.scope().Key(a.TypeURL, a.Name)); ok && r.Version() == a.Version {
		n.keeper.Accepted(a.Name, r.Version(), r.Any())
	}
}

// Netns implements connections.Places.
func (m *mesh) Netns(pod string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.members[pod]; p != nil {
		return []string{p.ns.Path()}
	}
	return nil
}

// nodeKernel is the kernel as a node's agent has it.
type nodeKernel struct{ node *meshNode }

func (k nodeKernel) EndProxied(path string, mtls []capture.Leg, refused func(port uint16) bool) (int, error) {
	k.node.mesh.mu.Lock()
	defer k.node.mesh.mu.Unlock()
	for _, p := range k.node.mesh.members {
		if p.ns.Path() == path {
			return capture.EndProxied(p.ns, k.node.mark, mtls, refused)
		}
	}
	return 0, errors.New("no such pod")
}
