// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"

	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"github.com/go-logr/logr/testr"

	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// keep starts a keeper of the node's connections that knows none, as an agent does that has just started, in place of
// the one before. It hears which guards the proxy has.
func (n *meshNode) keep() {
	t := n.mesh.t
	k := connections.New(testr.NewWithInterface(t, testr.Options{}))
	n.keeper.Store(k)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run(ctx, new(kernel.Kernel), n.mesh)
	}()
	n.stopKeeping = func() { cancel(); <-done }
	t.Cleanup(n.stopKeeping)
	n.mesh.mu.Lock()
	defer n.mesh.mu.Unlock()
	for _, p := range n.mesh.members {
		name := names.PodAuthorization(p.namespace, p.name)
		if r, ok := n.mesh.cache.Get(n.scope().Key(xds.TypeExtension, name)); ok && p.node == n {
			k.Accepted(name, r.Version(), r.Any())
		}
	}
}

func (n *meshNode) told(line *accesslogdatav3.AccessLogCommon, plaintext bool) {
	n.keeper.Load().Told(line, plaintext)
}

// accepted is what the relay tells the keeper.
func (n *meshNode) accepted(a xds.Ack) {
	if a.Error != "" || a.TypeURL != xds.TypeExtension {
		return
	}
	if r, ok := n.mesh.cache.Get(n.scope().Key(a.TypeURL, a.Name)); ok && r.Version() == a.Version {
		n.keeper.Load().Accepted(a.Name, r.Version(), r.Any())
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
