// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// adminTimeout bounds one call of Envoy's admin interface.
	adminTimeout = 5 * time.Second
	// drainAtLeast is how long callers have to hear from Kubernetes that the pod goes, and send it no new connections.
	drainAtLeast = 5 * time.Second
	// drainPause is how often Envoy is asked for connections; it can't tell by itself.
	drainPause = 500 * time.Millisecond
)

// Drain makes Envoy tell callers that speak HTTP to go elsewhere (GOAWAY, Connection: close) and waits until no
// connection is left, or the time is up, so that a waypoint that scales down or is replaced resets no request and an
// idle one goes soon.
func Drain(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return drain(ctx, names.AdminSocket, d, drainAtLeast)
}

func drain(ctx context.Context, socket string, d, atLeast time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	client := &http.Client{Timeout: adminTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"} {
		if _, err := ask(ctx, client, http.MethodPost, path); err != nil {
			return fmt.Errorf("drain the proxy: %w", err)
		}
	}
	for wait := atLeast; ; wait = drainPause {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		// A proxy that does not answer may have connections.
		if stats, err := ask(ctx, client, http.MethodGet, activeConnections); err == nil && idle(stats) {
			return nil
		}
	}
}

// activeConnections asks for the connections of callers, which the limit of them counts (envoy.PeerLimit); statistics
// of listeners are not kept (package bootstrap).
var activeConnections = "/stats?" +
	url.Values{"filter": {`^connection_limit\.` + names.ListenerMTLS + `\.active_connections$`}}.Encode()

// idle tells whether every gauge is zero, and there is one.
func idle(stats string) bool {
	lines := strings.Split(strings.TrimSpace(stats), "\n")
	return !slices.ContainsFunc(lines, func(l string) bool { return !strings.HasSuffix(l, ": 0") })
}

func ask(ctx context.Context, client *http.Client, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return string(body), err
}
