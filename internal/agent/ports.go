// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/scrape"
	"github.com/fairway-mesh/fairway/internal/wake"
)

// portRetry is how often a port of the node's is tried again that another agent has still.
const portRetry = time.Second

// servePorts of an agent that has a network of its own: for people, kubelet and Prometheus.
func (c *Core) servePorts(ctx context.Context) error {
	public := introspect.Public{
		Configured: introspect.ListenersAcknowledged(c.Relay, c.opts.Required...),
		Envoy:      c.envoy, Drain: c.opts.Drain, Patience: time.Second, Metrics: c.Registry,
	}
	local := introspect.AgentHandler(c.snapshot, c.envoy, introspect.Metrics(c.Registry, c.envoy))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return introspect.Serve(ctx, introspect.LoopbackAddress, local) })
	g.Go(func() error {
		return introspect.Serve(ctx, net.JoinHostPort("", strconv.Itoa(names.PortAgent)), public.Handler())
	})
	return g.Wait()
}

// ServeNode answers people on the node and Prometheus until the context ends. Of a node's agents one at a time can.
// What introspection shows of the node is added.
func (c *Core) ServeNode(ctx context.Context, add func(*introspect.Agent)) error {
	metrics := introspect.Metrics(c.Registry, c.envoy)
	snapshot := func() introspect.Agent {
		a := c.snapshot()
		add(&a)
		return a
	}
	local := toRoot(introspect.AgentHandler(snapshot, c.envoy, metrics))
	mux := http.NewServeMux()
	mux.Handle("GET "+introspect.PathMetrics, metrics)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return c.patiently(ctx, func() error { return introspect.Serve(ctx, introspect.LoopbackAddress, local) })
	})
	g.Go(func() error {
		return c.patiently(ctx, func() error { return scrape.Serve(ctx, names.PortMetrics, c.opts.Guard.Protect(mux)) })
	})
	return ended(g.Wait())
}

// patiently serves on a port as soon as it is free. Agents of versions that had them until they ended leave them late.
func (c *Core) patiently(ctx context.Context, serve func() error) error {
	for said := false; ; said = true {
		err := serve()
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		if !said {
			c.opts.Log.Info("waiting for a port of the node", "reason", err.Error())
		}
		if !wake.After(ctx, portRetry) {
			return nil
		}
	}
}

// Ready says what keeps the proxy from taking connections.
func (c *Core) Ready(ctx context.Context) error {
	if err := introspect.ListenersAcknowledged(c.Relay, c.opts.Required...)(); err != nil {
		return err
	}
	return c.envoy.Ready(ctx)
}
