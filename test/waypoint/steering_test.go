// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// controlHeaders are all that Envoy 1.40 reads or writes, and one that nobody knows. The names of headers are case
// insensitive; Go's client writes them as they are here.
var controlHeaders = map[string]string{
	"X-Envoy-Attempt-Count":              "7",
	"X-Envoy-Cluster":                    "service/shop/web-v2/8080",
	"X-Envoy-Decorator-Operation":        "forged",
	"X-Envoy-Downstream-Service-Cluster": "forged",
	"X-Envoy-Downstream-Service-Node":    "forged",
	"X-Envoy-Expected-Rq-Timeout-Ms":     "1",
	"X-Envoy-External-Address":           "198.51.100.7",
	"X-Envoy-Fault-Abort-Request":        "503",
	"X-Envoy-Fault-Delay-Request":        "60000",
	"X-Envoy-Force-Trace":                "true",
	"X-Envoy-Hedge-On-Per-Try-Timeout":   "true",
	"X-Envoy-Internal":                   "true",
	"X-Envoy-Ip-Tags":                    "forged",
	"X-Envoy-Is-Timeout-Retry":           "true",
	"X-Envoy-Max-Retries":                "60",
	"X-Envoy-Nobody-Knows":               "forged",
	"X-Envoy-Original-Dst-Host":          "127.0.0.1:9",
	"X-Envoy-Original-Host":              "forged",
	"X-Envoy-Original-Path":              "/forged",
	"X-Envoy-Original-Url":               "http://forged/",
	"X-Envoy-Peer-Metadata":              "forged",
	"X-Envoy-Retriable-Header-Names":     "server",
	"X-Envoy-Retriable-Status-Codes":     "200,418,503",
	"X-Envoy-Retry-Grpc-On":              "unavailable",
	"X-Envoy-Retry-On": "5xx,gateway-error,retriable-4xx,retriable-status-codes," +
		"retriable-headers,reset",
	"X-Envoy-Upstream-Alt-Stat-Name":           "forged",
	"X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms":   "1",
	"X-Envoy-Upstream-Rq-Timeout-Alt-Response": "true",
	"X-Envoy-Upstream-Rq-Timeout-Ms":           "1",
	"X-Envoy-Upstream-Stream-Duration-Ms":      "1",
	"x-eNVOY-rEtry-oN":                         "5xx",
	"X-Envoy-Upstream-Healthchecked-Cluster":   "forged",
	"X-Envoy-Immediate-Health-Check-Fail":      "true",
	"X-Envoy-Degraded":                         "true",
	"X-Envoy-Overloaded":                       "true",
	"X-Envoy-Ratelimited":                      "true",
	"X-Envoy-Upstream-Canary":                  "true",
	"X-Envoy-Original-Method":                  "DELETE",
	"X-Envoy-Local-Overloaded":                 "true",
}

// TestNobodySteers: no header of a caller's decides how often or how long the waypoint tries, and none that looks like
// the mesh's own reaches the application, be the caller's address private, public, or said to be another one.
func TestNobodySteers(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int64
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		if strings.HasPrefix(r.URL.Path, "/fails") {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(rw).Encode(echoed{Name: "app", Header: r.Header})
	}))
	w.backend(webV1, model.ProtocolHTTP, e)
	full := "/rewritten"
	dialled := w.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{
		rule(below("/rewrite"), filters(
			model.Filter{Rewrite: &model.Rewrite{Path: &model.PathChange{Full: &full}, Hostname: "other"}}), to(webV1, 1)),
		rule(below("/"), nil, to(webV1, 1)),
	})})
	// Envoy takes this address for a private one, as those of pods are; the others of a test's callers it does not.
	caller := newCaller(t, netip.MustParseAddr("127.0.0.1"), w.waypoint, &tls.Config{
		Certificates: []tls.Certificate{w.ca.Issue(clientID)}, VerifyConnection: peer(w.ca, waypointID),
	})
	c := caller.client(t, dialled, nil)
	for _, forwarded := range []string{"", "10.0.0.1", "198.51.100.7", "255.255.255.255"} {
		for _, path := range []string{"/", "/rewrite", "/fails"} {
			header := []string{}
			for name, value := range controlHeaders {
				header = append(header, name, value)
			}
			if forwarded != "" {
				header = append(header, "X-Forwarded-For", forwarded)
			}
			tries.Store(0)
			r := do(t, c, "POST", "http://web"+path, header...)
			if want := map[bool]int{true: 503, false: 200}[path == "/fails"]; r.status != want || tries.Load() != 1 {
				t.Errorf("%s, said to be from %q: status %d after %d tries", path, forwarded, r.status, tries.Load())
			}
			for name := range r.Header {
				if strings.HasPrefix(strings.ToLower(name), "x-envoy") {
					t.Errorf("%s, said to be from %q: the application sees %s: %q", path, forwarded, name, r.Header.Get(name))
				}
			}
			for name := range r.header {
				if strings.HasPrefix(strings.ToLower(name), "x-envoy") {
					t.Errorf("%s, said to be from %q: the caller sees %s: %q", path, forwarded, name, r.header.Get(name))
				}
			}
		}
	}
}
