// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/fairway-mesh/fairway/internal/model"
)

func TestTimeoutsAndRetries(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int64
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n := tries.Add(1)
		switch {
		case strings.HasPrefix(r.URL.Path, "/slow"):
			<-r.Context().Done()
		case strings.HasPrefix(r.URL.Path, "/flaky") && n < 3:
			rw.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasPrefix(r.URL.Path, "/first-slow") && n < 2:
			<-r.Context().Done()
		case strings.HasPrefix(r.URL.Path, "/drops"):
			panic(http.ErrAbortHandler)
		}
	}))
	w.backend(webV1, model.ProtocolHTTP, e)
	// Short, but long enough for a try that nobody delays on a busy machine.
	short, long := ptr.To(250*time.Millisecond), ptr.To(10*time.Second)
	with := func(path string, change func(*model.Rule)) model.Rule {
		r := rule(below(path), nil, to(webV1, 1))
		change(&r)
		return r
	}
	retry := &model.Retry{Codes: []uint32{503}, Attempts: 3, Backoff: time.Millisecond}
	dialled := w.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		with("/slow/request", func(r *model.Rule) { r.RequestTimeout = short }),
		with("/slow/try", func(r *model.Rule) { r.BackendTimeout, r.RequestTimeout = short, long }),
		with("/slow/retried", func(r *model.Rule) { r.BackendTimeout, r.Retry = short, retry }),
		with("/flaky/retried", func(r *model.Rule) { r.Retry = retry }),
		with("/first-slow/retried", func(r *model.Rule) { r.BackendTimeout, r.RequestTimeout, r.Retry = short, long, retry }),
		with("/drops/retried", func(r *model.Rule) { r.Retry = retry }),
		with("/", func(*model.Rule) {}),
	})})
	c := w.caller(clientID).client(t, dialled, nil)
	for _, tc := range []struct {
		path          string
		status, tries int
	}{
		{"/slow/request", 504, 1},
		{"/slow/try", 504, 1},
		{"/slow/retried", 504, 4},
		{"/flaky/retried", 200, 3},
		{"/flaky", 503, 1},
		{"/first-slow/retried", 200, 2},
		{"/drops/retried", 503, 4},
		{"/drops", 503, 1},
	} {
		tries.Store(0)
		start := time.Now()
		r := do(t, c, "POST", "http://web"+tc.path)
		if r.status != tc.status || int(tries.Load()) != tc.tries {
			t.Errorf("%s: status %d after %d tries, want %d after %d", tc.path, r.status, tries.Load(), tc.status, tc.tries)
		}
		t.Logf("%s: %d after %d tries in %s", tc.path, r.status, tries.Load(), time.Since(start).Round(time.Millisecond))
	}
}
