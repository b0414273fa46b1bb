// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// TestModulesThatNoThreadStarts: where a thread can't start a module that Envoy has taken, Envoy leaves the module out.
// Nothing passes without it, whatever it is shown.
func TestModulesThatNoThreadStarts(t *testing.T) {
	headers := model.Processed{Headers: true}
	for name, shown := range map[string]struct{ requests, answers model.Processed }{
		"requests": {headers, model.Processed{}}, "answers": {model.Processed{}, headers}, "both": {headers, headers},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t)
			runs := func(p *wasmtest.Module) {
				t.Helper()
				p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, "x-ran", "1"))
				p.On(wasmtest.OnResponse, p.Set(wasmtest.Response, "x-ran", "1"))
				w := moduleOf(t, p)
				require.True(t, w.Marked)
				w.Request, w.Response = shown.requests, shown.answers
				s.module(w)
			}
			runs(wasmtest.Plugin())
			eventually.True(t, "the module", func() bool {
				resp, body := s.asks(http.MethodGet, "/", "")
				require.Equal(t, http.StatusOK, resp.StatusCode)
				return strings.Contains(body, `"X-Ran":["1"]`) == shown.requests.Headers &&
					(resp.Header.Get("X-Ran") == "1") == shown.answers.Headers
			})
			runs(wasmtest.Plugin().TriedUntil(time.Now().Add(2 * time.Second)))
			eventually.True(t, "an error", func() bool {
				resp, _ := s.asks(http.MethodGet, "/", "")
				return resp.StatusCode == http.StatusInternalServerError
			})
			served := s.app.Requests.Load()
			for range 20 {
				resp, body := s.asks(http.MethodPost, "/", "body")
				require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
				require.Equal(t, "an extension failed\n", body)
			}
			if shown.requests.Headers {
				require.Equal(t, served, s.app.Requests.Load())
			}
			require.Contains(t, s.log.String(), "this thread of the proxy could not start the module")
		})
	}
}
