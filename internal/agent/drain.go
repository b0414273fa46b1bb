// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

// adminTimeout bounds one call of Envoy's admin interface.
const adminTimeout = 5 * time.Second

// Drain makes Envoy tell its peers to go elsewhere (GOAWAY on HBONE connections) and waits until the time is up, so that
// a waypoint that scales down or is replaced resets no request.
func Drain(ctx context.Context, d time.Duration) error {
	client := &http.Client{Timeout: adminTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", names.AdminSocket)
		},
	}}
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://envoy"+path, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("drain the proxy: %w", err)
		}
		_ = res.Body.Close()
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return nil
}
