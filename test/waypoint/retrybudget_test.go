// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// flaky fails the first try of each request, and holds all others until it is told.
type flaky struct {
	mu      sync.Mutex
	seen    map[string]bool
	repeats int
	release chan struct{}
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/flaky") {
		return
	}
	f.mu.Lock()
	id, release := r.Header.Get("X-Id"), f.release
	again := f.seen[id]
	f.seen[id] = true
	if again {
		f.repeats++
	}
	f.mu.Unlock()
	if !again {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	<-release
}

// TestRetryBudget: of requests that fail, so many are repeated as the budget has room for, the least at any rate.
func TestRetryBudget(t *testing.T) {
	w := newWorld(t)
	app := &flaky{seen: map[string]bool{}, release: make(chan struct{})}
	e, _ := w.pod(appID, app)
	w.backend(web, model.ProtocolHTTP, e)
	repeated := rule(below("/"), nil, to(web, 1))
	repeated.Retry = &model.Retry{Codes: []uint32{503}, Attempts: 1, Backoff: time.Millisecond}
	dialled := w.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{repeated})})
	c := w.caller(clientID).client(t, dialled, nil)
	const failing = 40
	n := 0
	// fails has requests fail at a time, and tells how many were repeated and how many were not.
	fails := func(budget model.RetryBudget, before int) (repeats, refused int) {
		t.Helper()
		u := w.upstreams[web]
		u.Retries = &budget
		w.upstream(u, e)
		for range before {
			require.Equal(t, http.StatusOK, do(t, c, http.MethodPost, "http://web/fine").status)
		}
		statuses := make(chan int, failing)
		for range failing {
			n++
			id := fmt.Sprint(n)
			go func() { statuses <- do(t, c, http.MethodPost, "http://web/flaky", "X-Id", id).status }()
		}
		eventually.True(t, "each request is repeated or not", func() bool {
			app.mu.Lock()
			defer app.mu.Unlock()
			return app.repeats+len(statuses) == failing
		})
		app.mu.Lock()
		repeats, refused = app.repeats, len(statuses)
		close(app.release)
		app.release, app.repeats = make(chan struct{}), 0
		app.mu.Unlock()
		for range failing {
			if s := <-statuses; s != http.StatusOK {
				require.Equal(t, http.StatusServiceUnavailable, s)
			}
		}
		return repeats, refused
	}
	t.Run("all", func(t *testing.T) {
		repeats, _ := fails(model.RetryBudget{Percent: 0, Interval: time.Second, Least: failing}, 0)
		require.Equal(t, failing, repeats)
	})
	t.Run("the least", func(t *testing.T) {
		repeats, refused := fails(model.RetryBudget{Percent: 0, Interval: time.Second, Least: 5}, 0)
		require.InDelta(t, 5, repeats, 1) // two workers may count at the same moment
		require.Equal(t, failing, repeats+refused)
	})
	t.Run("a share of those of an interval", func(t *testing.T) {
		// 60 that are over and 40 that fail: 10 in 100, and their repeated ones count, too.
		repeats, _ := fails(model.RetryBudget{Percent: 10, Interval: time.Hour, Least: 1}, 60)
		require.GreaterOrEqual(t, repeats, 9)
		require.LessOrEqual(t, repeats, 13)
	})
}
