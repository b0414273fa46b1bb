// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// TestNoRouteEndsAMessage: whatever a route does to headers, a caller's body is not the next request on a connection to
// the application, which the waypoint has for all callers.
func TestNoRouteEndsAMessage(t *testing.T) {
	w := newWorld(t)
	var lock sync.Mutex
	var seen []string
	app := w.app(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		lock.Lock()
		seen = append(seen, r.URL.Path)
		lock.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	w.backend(webV1, model.ProtocolHTTP, model.Endpoint{Address: app})
	var rules []model.Rule
	want := map[string]int{"/": http.StatusOK}
	change := func(path string, status int, c model.HeaderChange) {
		want[path] = status
		r := rule(below(path), filters(model.Filter{RequestHeaders: &c}), to(webV1, 1))
		if _, err := route.CheckRule(r); err != nil { // what ingest makes of it then
			r = model.Rule{Source: r.Source, Match: r.Match, Invalid: true}
		}
		rules = append(rules, r)
	}
	for name, value := range map[string]string{
		"Content-Length": "0", "transfer-encoding": "identity", "Connection": "upgrade", "UPGRADE": "websocket",
	} {
		path := "/" + strings.ToLower(name)
		header := []model.Header{{Name: name, Value: value}}
		change("/set"+path, http.StatusInternalServerError, model.HeaderChange{Set: header})
		change("/add"+path, http.StatusInternalServerError, model.HeaderChange{Add: header})
		change("/remove"+path, http.StatusOK, model.HeaderChange{Remove: []string{name}})
	}
	dialled := w.serve(web, true, &model.RouteTable{Default: pointers(append(rules, rule(below("/"), nil, to(webV1, 1))))})
	c := w.caller(clientID).client(t, dialled, nil)
	for path, status := range want {
		for _, body := range []io.Reader{
			strings.NewReader("GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"),
			io.MultiReader(strings.NewReader("GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n")), // of no known length
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web"+path, body)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := c.Do(r)
			if err != nil {
				t.Fatal(path, err)
			}
			if _ = answer.Body.Close(); answer.StatusCode != status {
				t.Errorf("%s: status %d", path, answer.StatusCode)
			}
		}
	}
	lock.Lock()
	defer lock.Unlock()
	if slices.Contains(seen, "/smuggled") {
		t.Errorf("a body was read as a request: %q", seen)
	}
}
