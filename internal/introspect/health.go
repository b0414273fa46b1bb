// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// Paths on names.PortAgent.
const (
	pathHealthy = "/healthz"
	pathReady   = "/readyz"
	PathMetrics = "/metrics"
	// pathDrained answers when the proxy has drained. Kubelet asks it before it ends the proxy of a pod that goes.
	pathDrained = "/drained"
)

const (
	// readyTimeout is below kubelet's own (2 s), so that the answer says what is slow.
	readyTimeout   = 1500 * time.Millisecond
	readyPause     = 50 * time.Millisecond
	metricsTimeout = 8 * time.Second
	// drainBegins is how long the agent itself may take to hear that the pod goes, which kubelet tells all containers
	// at once.
	drainBegins = 5 * time.Second
)

// Public is what a waypoint's agent answers on names.PortAgent, to kubelet and to Prometheus.
type Public struct {
	// Configured tells whether the proxy has its configuration; see ListenersAcknowledged. nil means always.
	Configured func() error
	Envoy      *Envoy
	// Metrics are the agent's own.
	Metrics prometheus.Gatherer
	// Patience is how long the answer to readiness is held back until the proxy is ready for the first time: kubelet
	// makes a Warning of each that says no. It is below readyTimeout.
	Patience time.Duration
	// Drain is nil for a proxy that nobody drains.
	Drain *Drain
}

// Drain is how far a proxy has drained.
type Drain struct {
	begun, done chan struct{}
}

// NewDrain is of a proxy that serves.
func NewDrain() *Drain { return &Drain{begun: make(chan struct{}), done: make(chan struct{})} }

// Begin must be called once, End after it.
func (d *Drain) Begin() { close(d.begun) }

// End tells those who wait.
func (d *Drain) End() { close(d.done) }

// wait returns when the proxy has drained. Whoever asks while nothing is to be drained is not kept waiting for long.
func (d *Drain) wait(ctx context.Context) error {
	begins, cancel := context.WithTimeout(ctx, drainBegins)
	defer cancel()
	select {
	case <-d.begun:
	case <-begins.Done():
		return errors.New("the pod is not being terminated")
	}
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Handler answers them.
func (p Public) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathHealthy, func(w http.ResponseWriter, _ *http.Request) { verdict(w, nil) })
	var started atomic.Bool
	mux.HandleFunc("GET "+pathReady, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		err := p.ready(ctx)
		for held := time.Now(); err != nil && !started.Load() && time.Since(held) < p.Patience &&
			ctx.Err() == nil; err = p.ready(ctx) {
			time.Sleep(readyPause)
		}
		if err == nil {
			started.Store(true)
		}
		verdict(w, err)
	})
	if p.Metrics != nil {
		mux.Handle("GET "+PathMetrics, Metrics(p.Metrics, p.Envoy))
	}
	if p.Drain != nil {
		mux.HandleFunc("GET "+pathDrained, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // it takes what draining takes
			verdict(w, p.Drain.wait(r.Context()))
		})
	}
	return mux
}

func (p Public) ready(ctx context.Context) error {
	if err := call(p.Configured); err != nil {
		return err
	}
	return p.Envoy.Ready(ctx)
}

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func verdict(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// Metrics writes the agent's own families, then Envoy's as they are. The names can't collide: Envoy's begin with
// "envoy_". An absent Envoy is itself a measurement, not an error of the scrape.
func Metrics(own prometheus.Gatherer, envoy *Envoy) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeMetrics(w, r, own, envoy) })
}

func writeMetrics(w http.ResponseWriter, r *http.Request, own prometheus.Gatherer, envoy *Envoy) {
	families, err := own.Gather()
	if err != nil && len(families) == 0 {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), metricsTimeout)
	defer cancel()
	res, err := envoy.get(ctx, "stats/prometheus", nil)
	up := 0
	if err == nil {
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode == http.StatusOK {
			up = 1
		}
	}
	_, _ = fmt.Fprintf(w, "# HELP fairway_agent_envoy_up Whether the proxy answered for its metrics.\n"+
		"# TYPE fairway_agent_envoy_up gauge\nfairway_agent_envoy_up %d\n", up)
	if up == 1 {
		_, _ = io.Copy(w, res.Body)
	}
}

// ListenersAcknowledged tells whether the proxy on an agent's xDS server has answered for its listeners: those named in
// required must be accepted; all others must have been answered once, because one bad listener must not take the good
// ones out of service. A proxy with nothing to listen on is configured once it has subscribed and nothing is under way.
func ListenersAcknowledged(source ProxySource, required ...string) func() error {
	return func() error {
		proxies := source.Proxies()
		if len(proxies) == 0 {
			return errors.New("the proxy has not asked for its configuration yet")
		}
		var last error
		for _, p := range proxies { // while a restarted proxy takes over there may be two streams
			if last = listenersOf(p, required); last == nil {
				return nil
			}
		}
		return last
	}
}

func listenersOf(p xds.ProxyState, required []string) error {
	t, ok := p.Types[xds.TypeListener]
	if !ok {
		return errors.New("the proxy has not asked for its listeners yet")
	}
	accepted := map[string]bool{}
	for _, r := range t.Resources {
		accepted[r.Name] = r.Acked != ""
		if r.Sent != "" && r.Acked == "" && r.Rejected == "" {
			return fmt.Errorf("the proxy has not answered for listener %s yet", r.Name)
		}
	}
	if i := slices.IndexFunc(required, func(name string) bool { return !accepted[name] }); i >= 0 {
		return fmt.Errorf("the proxy has not accepted listener %s yet", required[i])
	}
	if t.InFlight && len(t.Resources) == 0 {
		return errors.New("the proxy has not answered for its listeners yet")
	}
	return nil
}
