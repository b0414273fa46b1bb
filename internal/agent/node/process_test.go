// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/admin"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// process is the proxy's in a world.
type process struct{ w *world }

func (p process) Ready(context.Context) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.w.proxyDown || !p.w.ready {
		return errors.New("the proxy is not live")
	}
	return nil
}

func (p process) Listening(context.Context) (map[string]bool, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	out := map[string]bool{}
	for name := range p.w.listeners {
		out[name] = !p.w.caDown || !translatenode.TakesMTLS(name)
	}
	return out, nil
}

func (p process) CloseListeners(context.Context) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.note("close listeners, %d queues are safe", len(p.w.queues))
	return nil
}

// Connections are counted by a timer, which comes late at times.
func (p process) Connections(context.Context) (admin.Count, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.w.died {
		return admin.Count{}, fmt.Errorf("the proxy's admin interface: %w", unix.ECONNREFUSED)
	}
	p.w.counted++
	open := p.w.connections
	if p.w.counted < 3 {
		open = 0
	}
	return admin.Count{Open: open, At: p.w.counted}, nil
}
