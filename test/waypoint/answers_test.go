// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// sized answers as its path says: with so many bytes, or without an end, or with an answer that breaks off.
type sized struct {
	asked atomic.Int64
	// ended counts the endless answers that nobody takes any longer.
	ended atomic.Int64
}

func (s *sized) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	w.Header().Set("Content-Type", "text/plain")
	how, size, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n, _ := strconv.Atoi(size)
	part := []byte(strings.Repeat("x", 64<<10))
	write := func(n int) {
		for ; n > 0; n -= len(part) {
			_, _ = w.Write(part[:min(n, len(part))])
		}
	}
	switch how {
	case "said":
		w.Header().Set("Content-Length", size)
		if r.Method != http.MethodHead {
			write(n)
		}
	case "parts":
		w.Header().Set("Trailer", "Checked")
		write(n - 1)
		_ = http.NewResponseController(w).Flush()
		write(1)
		w.Header().Set("Checked", "yes")
	case "status":
		w.WriteHeader(n)
	case "refused":
		w.WriteHeader(http.StatusForbidden)
		write(n)
	case "cut", "late":
		write(n)
		_ = http.NewResponseController(w).Flush()
		if how == "late" {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	case "endless":
		for err := error(nil); err == nil; {
			_, err = w.Write(part)
		}
		s.ended.Add(1)
	}
}

// protocolsOfAnswers are ways on which answers come: what a caller speaks, and what the application is said to.
var protocolsOfAnswers = map[string]struct {
	caller *http.Protocols
	app    model.Protocol
}{
	"HTTP1":          {nil, model.ProtocolHTTP},
	"HTTP2":          {h2cOnly(), model.ProtocolHTTP},
	"HTTP1 to HTTP2": {nil, model.ProtocolHTTP2},
}

// holding is a waypoint that holds answers of up to so many bytes, once its client is answered so.
func holding(t *testing.T, app http.Handler, protocol model.Protocol, table model.RouteTable) (*world, string) {
	t.Helper()
	w := newWorld(t)
	e, _ := w.pod(appID, app)
	w.backend(web, protocol, e)
	dialled := w.serve(web, true, nil)
	w.doesWith(table)
	client := w.caller(clientID).client(t, dialled, nil)
	eventually.True(t, "an answer by this table", func() bool {
		return do(t, client, http.MethodGet, fmt.Sprintf("http://web/said/%d", table.Requests.MaxAnswerBytes+1)).status ==
			http.StatusInternalServerError
	})
	return w, dialled
}

// TestAnswersAreBounded: an answer passes whole if it is as large as a policy says, and not at all if it is larger.
func TestAnswersAreBounded(t *testing.T) {
	for name, way := range protocolsOfAnswers {
		t.Run(name, func(t *testing.T) {
			for _, most := range []int{1 << 10, 1 << 20, 8 << 20} {
				w, dialled := holding(t, &sized{}, way.app,
					model.RouteTable{Requests: model.Requests{MaxAnswerBytes: uint32(most)}})
				client := w.caller(clientID).client(t, dialled, way.caller)
				ask := func(method, path string, n int) (int, int, http.Header) {
					t.Helper()
					r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://web/%s/%d", path, n), nil)
					require.NoError(t, err)
					resp, err := client.Do(r)
					require.NoError(t, err)
					b, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					return resp.StatusCode, len(b), resp.Trailer
				}
				for _, path := range []string{"said", "parts"} {
					for range 4 {
						status, n, trailer := ask(http.MethodGet, path, most)
						require.Equal(t, http.StatusOK, status, path)
						require.Equal(t, most, n, path)
						require.Equal(t, path == "parts", trailer.Get("Checked") == "yes")
						status, n, _ = ask(http.MethodGet, path, most+1)
						require.Equal(t, http.StatusInternalServerError, status, path)
						require.Less(t, n, 100, "nothing of it passes")
					}
				}
				status, _, _ := ask(http.MethodHead, "said", most+1)
				require.Equal(t, http.StatusOK, status, "no body, however long it would be")
				for _, s := range []int{http.StatusNoContent, http.StatusNotModified, http.StatusTeapot} {
					status, _, _ := ask(http.MethodGet, "status", s)
					require.Equal(t, s, status)
				}
				line := w.accessLog(map[string]any{"path": fmt.Sprintf("/parts/%d", most+1), "status": 500})
				require.NotEmpty(t, line["to"])
				require.Empty(t, line["detail"], "as troubleshooting says")
			}
		})
	}
}

// TestAnswersThatBreakOff: of an answer that isn't there in full nothing passes, and neither does one that is late.
func TestAnswersThatBreakOff(t *testing.T) {
	for name, way := range protocolsOfAnswers {
		t.Run(name, func(t *testing.T) {
			late := rule(below("/late"), nil, to(web, 1))
			late.RequestTimeout = ptr.To(250 * time.Millisecond)
			w, dialled := holding(t, &sized{}, way.app, model.RouteTable{
				Default:  pointers([]model.Rule{late, rule(below("/"), nil, to(web, 1))}),
				Requests: model.Requests{MaxAnswerBytes: 1 << 20},
			})
			client := w.caller(clientID).client(t, dialled, way.caller)
			for path, status := range map[string][]int{
				"/cut/1000":  {http.StatusBadGateway, http.StatusServiceUnavailable},
				"/late/1000": {http.StatusGatewayTimeout},
			} {
				r := do(t, client, http.MethodGet, "http://web"+path)
				require.Contains(t, status, r.status, path)
				require.NotContains(t, r.body, "xxx", path)
			}
		})
	}
}

// TestEndlessAnswers end, and cost a proxy little more than the bound for each.
func TestEndlessAnswers(t *testing.T) {
	const callers, most = 50, 1 << 20
	for name, way := range protocolsOfAnswers {
		t.Run(name, func(t *testing.T) {
			app := &sized{}
			w, dialled := holding(t, app, way.app, model.RouteTable{Requests: model.Requests{MaxAnswerBytes: most}})
			before := w.peak()
			var wg sync.WaitGroup
			for range callers {
				client := w.caller(clientID).client(t, dialled, way.caller)
				wg.Go(func() {
					resp, err := client.Get("http://web/endless")
					if err != nil {
						t.Error(err)
						return
					}
					_ = resp.Body.Close()
					if resp.StatusCode != http.StatusInternalServerError {
						t.Errorf("status %d", resp.StatusCode)
					}
				})
			}
			wg.Wait()
			eventually.True(t, "the application to be told", func() bool { return app.ended.Load() == callers })
			grown := (w.peak() - before) / callers
			t.Logf("%d KiB for each caller", grown>>10)
			require.Less(t, grown, 2*most)
		})
	}
}

// TestCallersThatLeaveHeldAnswers: those that go while an answer is held take it with them, and nothing of others.
func TestCallersThatLeaveHeldAnswers(t *testing.T) {
	const callers = 100
	for name, way := range protocolsOfAnswers {
		t.Run(name, func(t *testing.T) {
			held := make(chan struct{}, callers)
			var left atomic.Int64
			w, dialled := holding(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/held" {
					(&sized{}).ServeHTTP(rw, r)
					return
				}
				_, _ = rw.Write(make([]byte, 256<<10))
				_ = http.NewResponseController(rw).Flush()
				held <- struct{}{}
				<-r.Context().Done()
				left.Add(1)
			}), way.app, model.RouteTable{Requests: model.Requests{
				MaxAnswerBytes: 1 << 20, Compression: []model.Compression{model.CompressGzip},
			}})
			client := w.caller(clientID).client(t, dialled, way.caller)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/held", nil)
					if err != nil {
						t.Error(err)
						return
					}
					resp, err := client.Do(r)
					if err == nil {
						_ = resp.Body.Close()
						t.Errorf("status %d of an answer that hasn't ended", resp.StatusCode)
					}
				})
			}
			for range callers {
				<-held
			}
			leave()
			wg.Wait()
			eventually.True(t, "the application to be told", func() bool { return left.Load() == callers })
			r := do(t, client, http.MethodGet, "http://web/parts/1000")
			require.Equal(t, http.StatusOK, r.status)
			require.Len(t, r.body, 1000)
		})
	}
}

// TestHeldAnswersAndTheRest: bounds of answers leave the other parts of policies and routes alone, and nothing that a
// caller or a rule says gets around them.
func TestHeldAnswersAndTheRest(t *testing.T) {
	const most = 64 << 10
	t.Run("compression", func(t *testing.T) {
		w, dialled := holding(t, &sized{}, model.ProtocolHTTP, model.RouteTable{Requests: model.Requests{
			MaxAnswerBytes: most, Compression: []model.Compression{model.CompressGzip},
		}})
		client := w.caller(clientID).client(t, dialled, nil)
		r := do(t, client, http.MethodGet, fmt.Sprintf("http://web/parts/%d", most), "Accept-Encoding", "gzip")
		require.Equal(t, "gzip", r.header.Get("Content-Encoding"))
		in, err := gzip.NewReader(strings.NewReader(r.body))
		require.NoError(t, err)
		b, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Len(t, b, most)
		r = do(t, client, http.MethodGet, fmt.Sprintf("http://web/parts/%d", most+1), "Accept-Encoding", "gzip")
		require.Equal(t, http.StatusInternalServerError, r.status, "what the application sent counts")
	})
	t.Run("requests", func(t *testing.T) {
		for _, bounds := range [][2]int{{1 << 10, 1 << 20}, {1 << 20, 1 << 10}} {
			delay := &model.Delay{For: time.Millisecond, Percent: 100}
			w, dialled := holding(t, &sized{}, model.ProtocolHTTP, model.RouteTable{Requests: model.Requests{
				MaxBytes: uint32(bounds[0]), MaxAnswerBytes: uint32(bounds[1]), Delay: delay,
			}})
			client := w.caller(clientID).client(t, dialled, h2cOnly())
			post := func(asked, answered int) int {
				resp, err := client.Post(fmt.Sprintf("http://web/said/%d", answered), "text/plain",
					strings.NewReader(strings.Repeat("x", asked)))
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				return resp.StatusCode
			}
			require.Equal(t, http.StatusOK, post(bounds[0], bounds[1]))
			require.Equal(t, http.StatusRequestEntityTooLarge, post(bounds[0]+1, bounds[1]))
			require.Equal(t, http.StatusInternalServerError, post(bounds[0], bounds[1]+1))
		}
	})
	t.Run("rules", func(t *testing.T) {
		app := &sized{}
		of := func(path string) model.Rule { return rule(below(path), nil, to(web, 1)) }
		retried := of("/said")
		retried.Retry = &model.Retry{Codes: []uint32{500}, Attempts: 3, Backoff: time.Millisecond}
		w, dialled := holding(t, app, model.ProtocolHTTP, model.RouteTable{
			Default:  pointers([]model.Rule{retried, of("/")}),
			Callers:  []model.CallerRules{{Namespace: "front", Rules: pointers([]model.Rule{retried, of("/parts")})}},
			Requests: model.Requests{MaxAnswerBytes: most},
		})
		client := w.caller(clientID).client(t, dialled, nil)
		before := app.asked.Load()
		for _, path := range []string{"said", "parts"} {
			r := do(t, client, http.MethodGet, fmt.Sprintf("http://web/%s/%d", path, most+1))
			require.Equal(t, http.StatusInternalServerError, r.status)
		}
		require.Equal(t, before+2, app.asked.Load(), "what is too large isn't asked for again")
		require.Equal(t, http.StatusNotFound, do(t, client, http.MethodGet, "http://web/elsewhere").status)
	})
	t.Run("upgrades", func(t *testing.T) {
		w, dialled := holding(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/chat" {
				(&sized{}).ServeHTTP(rw, r)
				return
			}
			c, b, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(c, b)
		}), model.ProtocolHTTP, model.RouteTable{Requests: model.Requests{MaxAnswerBytes: most}})
		c, in := raw(t, w.caller(clientID), dialled)
		const offer = "GET %s HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		_, err := fmt.Fprintf(c, offer, "/chat")
		require.NoError(t, err)
		status, err := readStatus(in)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, status)
		said := strings.Repeat("x", 4*most) + "\n"
		go func() { _, _ = io.WriteString(c, said) }()
		heard, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, said, heard)
		c, in = raw(t, w.caller(clientID), dialled)
		_, err = fmt.Fprintf(c, offer, fmt.Sprintf("/refused/%d", most+1))
		require.NoError(t, err)
		status, err = readStatus(in)
		require.NoError(t, err)
		require.Equal(t, http.StatusInternalServerError, status, "an offer alone is no upgrade")
	})
}

// TestExtensionsOfHeldAnswers: an extension sees what passes the bound, and may make more of it up to the bound.
func TestExtensionsOfHeldAnswers(t *testing.T) {
	const most = 64 << 10
	extension := model.Filter{Extension: &model.Extension{Name: "script", Lua: &model.Lua{Source: `
function envoy_on_response(handle)
  local size = handle:headers():get("size")
  if handle:headers():get(":status") == "200" then
    handle:headers():replace("seen", tostring(handle:body():length()))
    if size then handle:body():setBytes(string.rep("y", tonumber(size))) end
  end
end`}}}
	app := &sized{}
	w, dialled := holding(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if size := r.Header.Get("Size"); size != "" {
			rw.Header().Set("Size", size)
		}
		app.ServeHTTP(rw, r)
	}), model.ProtocolHTTP, model.RouteTable{
		Default:  pointers([]model.Rule{rule(below("/"), filters(extension), to(web, 1))}),
		Requests: model.Requests{MaxAnswerBytes: most},
	})
	for _, protocols := range []*http.Protocols{nil, h2cOnly()} {
		client := w.caller(clientID).client(t, dialled, protocols)
		r := do(t, client, http.MethodGet, fmt.Sprintf("http://web/parts/%d", most))
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, strconv.Itoa(most), r.header.Get("Seen"))
		r = do(t, client, http.MethodGet, fmt.Sprintf("http://web/parts/%d", most+1))
		require.Equal(t, http.StatusInternalServerError, r.status)
		require.Empty(t, r.header.Get("Seen"))
		r = do(t, client, http.MethodGet, "http://web/parts/10", "Size", strconv.Itoa(most))
		require.Equal(t, http.StatusOK, r.status)
		require.Len(t, r.body, most)
	}
}
