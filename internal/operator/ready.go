// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// readyPatience is below the time limit of the readiness probe (config/manager).
const readyPatience = 2 * time.Second

// waitReported is how long a start may take before it is logged what it waits for, and how often from then on.
const waitReported = 15 * time.Second

// readiness tells whether this replica can serve proxies: it listens, it has read the cluster, and if there is a Mesh,
// it can sign. A Deployment must not call a replica available before, or a rollout replaces the last one that serves.
type readiness struct {
	// signs says why no certificate can be had though there is a Mesh; nil if all is well. It is asked last.
	signs func(context.Context) error
	// patience is how long an answer is held back while the operator starts: kubelet makes a Warning of each that says no.
	patience time.Duration

	mu      sync.Mutex
	waiting map[string]struct{}
	started chan struct{} // closed when nothing is waited for any more
}

func newReadiness(signs func(context.Context) error) *readiness {
	return &readiness{signs: signs, waiting: map[string]struct{}{}, started: make(chan struct{})}
}

// await adds something that the start waits for; done says that it is there. The start ends once, so nothing may be
// added when nothing is left.
func (r *readiness) await(what string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[what] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.waiting[what]; !ok {
			return
		}
		if delete(r.waiting, what); len(r.waiting) == 0 {
			close(r.started)
		}
	}
}

// missing names what the start waits for; empty once it is over.
func (r *readiness) missing() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.waiting)), ", ")
}

// check implements healthz.Checker.
func (r *readiness) check(req *http.Request) error {
	select {
	case <-r.started:
	case <-req.Context().Done():
	case <-time.After(r.patience):
	}
	if missing := r.missing(); missing != "" {
		return errors.New("still waiting for: " + missing)
	}
	if err := r.signs(req.Context()); err != nil {
		return fmt.Errorf("no certificate can be signed: %w", err)
	}
	return nil
}

// report logs what is missing while a start takes long.
func (r *readiness) report(ctx context.Context, log logr.Logger) {
	tick := time.NewTicker(waitReported)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.started:
			log.Info("serving proxies")
			return
		case <-tick.C:
			log.Info("not ready: see the log lines about failing watches, and the permissions of the operator's service account",
				"waitingFor", r.missing())
		}
	}
}
