// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admin is what an agent asks of its Envoy by the admin interface, and has it do. What people may look at there
// is in package introspect.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// timeout bounds one question.
	timeout = 5 * time.Second
	// mostBytes of an answer; that with the listeners of a full node takes some 100 KB.
	mostBytes = 4 << 20
)

// Envoy is the admin interface of one Envoy.
type Envoy struct{ client *http.Client }

// New talks to the admin interface at the path of a socket (names.AdminSocket), once it is asked.
func New(socket string) *Envoy {
	return &Envoy{client: &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close what is open to the interface.
func (e *Envoy) Close() { e.client.CloseIdleConnections() }

// Listening are the names of the listeners that take connections.
func (e *Envoy) Listening(ctx context.Context) (map[string]bool, error) {
	text, err := e.ask(ctx, http.MethodGet, "/listeners")
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, "::"); ok {
			out[name] = true
		}
	}
	return out, nil
}

// CloseListeners for good. Connections live on, for as long as they like.
func (e *Envoy) CloseListeners(ctx context.Context) error {
	_, err := e.ask(ctx, http.MethodPost, "/drain_listeners")
	return err
}

// Gone tells of an error whether there is no Envoy that could have answered: a socket on which nobody listens, or none.
func Gone(err error) bool { return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) }

// Count is how many connections were open of those that listeners took, when Envoy counted them last. It does so by a
// timer of its own, every few seconds where it has the time.
type Count struct {
	Open int
	// At is the second of Envoy's life in which it counted.
	At int
}

const gaugeOpen, gaugeAt = "server.total_connections", "server.uptime"

// Connections is the last count of them.
func (e *Envoy) Connections(ctx context.Context) (Count, error) {
	filter := "^(" + gaugeOpen + "|" + gaugeAt + ")$"
	text, err := e.ask(ctx, http.MethodGet, "/stats?"+url.Values{"filter": {filter}}.Encode())
	if err != nil {
		return Count{}, err
	}
	gauges := map[string]int{}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(number); err == nil {
			gauges[name] = n
		}
	}
	if len(gauges) != 2 {
		return Count{}, errors.New("the proxy doesn't say how many connections it has")
	}
	return Count{Open: gauges[gaugeOpen], At: gauges[gaugeAt]}, nil
}

// Drain has callers that speak HTTP told to go elsewhere (GOAWAY, Connection: close).
func (e *Envoy) Drain(ctx context.Context) error {
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"} {
		if _, err := e.ask(ctx, http.MethodPost, path); err != nil {
			return err
		}
	}
	return nil
}

// callers asks for the connections of callers, which the limit of them counts (envoy.PeerLimit); statistics of
// listeners are not kept (package bootstrap).
var callers = "/stats?" +
	url.Values{"filter": {`^connection_limit\.` + names.ListenerMTLS + `\.active_connections$`}}.Encode()

// Idle tells whether no caller of a waypoint has a connection. The gauge is there once one had.
func (e *Envoy) Idle(ctx context.Context) (bool, error) {
	stats, err := e.ask(ctx, http.MethodGet, callers)
	return err == nil && idle(stats), err
}

// idle tells whether every gauge is zero, and there is one.
func idle(stats string) bool {
	lines := strings.Split(strings.TrimSpace(stats), "\n")
	return !slices.ContainsFunc(lines, func(l string) bool { return !strings.HasSuffix(l, ": 0") })
}

func (e *Envoy) ask(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := e.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("the proxy's admin interface: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, mostBytes))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the proxy answered %s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
