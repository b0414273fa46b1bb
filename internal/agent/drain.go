// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/admin"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// drainAtLeast is how long callers have to hear from Kubernetes that the pod goes, and send it no new connections.
	drainAtLeast = 5 * time.Second
	// drainPause is how often Envoy is asked for connections; it can't tell by itself.
	drainPause = 500 * time.Millisecond
)

// Drain makes Envoy tell callers that speak HTTP to go elsewhere and waits until no connection is left, or the time is
// up, so that a waypoint that scales down or is replaced resets no request and an idle one goes soon.
func Drain(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return drain(ctx, names.AdminSocket, d, drainAtLeast)
}

func drain(ctx context.Context, socket string, d, atLeast time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	envoy := admin.New(socket)
	defer envoy.Close()
	if err := envoy.Drain(ctx); err != nil {
		return fmt.Errorf("drain the proxy: %w", err)
	}
	for wait := atLeast; ; wait = drainPause {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		// A proxy that does not answer may have connections.
		if idle, err := envoy.Idle(ctx); err == nil && idle {
			return nil
		}
	}
}
