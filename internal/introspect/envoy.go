// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// envoyTimeout bounds one question to Envoy's admin interface. A large configuration dump takes a second or two.
const envoyTimeout = 20 * time.Second

// envoyPaths of Envoy's admin interface may be read. Everything else there changes something, or profiles the process.
var envoyPaths = []string{
	"certs", "clusters", "config_dump", "init_dump", "listeners", "memory", "ready", "server_info", "stats",
	"stats/prometheus",
}

// Envoy is the admin interface of one Envoy on a Unix socket.
type Envoy struct {
	client *http.Client
	hidden *strings.Replacer // nil for nothing
	// supported: it has said that its version will do. An Envoy that takes its place is of the same image.
	supported atomic.Bool
}

// Hide shows numbers of the configuration as 0. It is called before anybody asks.
func (e *Envoy) Hide(numbers ...string) {
	var pairs []string
	for _, n := range numbers {
		pairs = append(pairs, n, "0")
	}
	e.hidden = strings.NewReplacer(pairs...)
}

// NewEnvoy talks to the admin interface at a socket's path (names.AdminSocket). It connects when asked, so the proxy
// may come later.
func NewEnvoy(socket string) *Envoy {
	return &Envoy{client: &http.Client{
		Timeout: envoyTimeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
			MaxIdleConns:    2,
			IdleConnTimeout: time.Minute,
		},
	}}
}

// get asks for a path of the admin interface. The caller closes the body.
func (e *Envoy) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "envoy", Path: "/" + path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := e.client.Do(req)
	if err != nil {
		// What http.Client adds (method and a made-up URL) tells nobody anything.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("the proxy's admin interface doesn't answer: %w", err)
	}
	return res, nil
}

// Ready returns nil once Envoy serves: it is of a version that will do, its listeners and clusters came, and it is
// neither draining nor shutting down (admin path /ready).
func (e *Envoy) Ready(ctx context.Context) error {
	if err := e.checkVersion(ctx); err != nil {
		return err
	}
	res, err := e.get(ctx, "ready", nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	state, _ := io.ReadAll(io.LimitReader(res.Body, 256))
	return fmt.Errorf("the proxy is not live: %s", strings.TrimSpace(string(state)))
}

// handler passes GET requests for the paths in envoyPaths on.
func (e *Envoy) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.PathValue("path")
		if !slices.Contains(envoyPaths, path) {
			http.Error(w, fmt.Sprintf("%q can't be read here: use one of %s", path, strings.Join(envoyPaths, ", ")),
				http.StatusNotFound)
			return
		}
		res, err := e.get(r.Context(), path, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = res.Body.Close() }()
		if t := res.Header.Get("Content-Type"); t != "" {
			w.Header().Set("Content-Type", t)
		}
		w.WriteHeader(res.StatusCode)
		e.show(w, res.Body)
	})
}

// show passes an answer on, line by line: dumps are long, and their lines are not. A reader that goes away is its own
// business.
func (e *Envoy) show(w io.Writer, body io.Reader) {
	if e.hidden == nil {
		_, _ = io.Copy(w, body)
		return
	}
	for in := bufio.NewReader(body); ; {
		line, err := in.ReadString('\n')
		if _, writing := e.hidden.WriteString(w, line); writing != nil || err != nil {
			return
		}
	}
}
