// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	ext_procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// forged is an answer in the body of another one.
const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

// TestNobodyForgesTheNextAnswer: an extension, an authorization service or a TrafficPolicy that gives a body to an
// answer that has none, for its status or because the request was HEAD, makes no answer to the next request on the
// caller's connection; nor does a service with another length of the body, or with what is said before an answer (1xx).
func TestNobodyForgesTheNextAnswer(t *testing.T) {
	for what, begin := range map[string]func(*testing.T) (*world, string, []string){
		"scripts": scriptsThatForge, "processor": processorThatForges, "authorization": authorizerThatForges(false),
		"policy's authorization": authorizerThatForges(true),
		"fault 204":              faultsThatForge(http.StatusNoContent), "fault 304": faultsThatForge(http.StatusNotModified),
	} {
		t.Run(what, func(t *testing.T) {
			w, dialled, paths := begin(t)
			for _, path := range paths {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					oneByOne(t, w, dialled, method, path)
				}
			}
		})
	}
}

// TestOddStatusesPass: a status that no standard has is the application's to say, whoever else has a say in answers.
func TestOddStatusesPass(t *testing.T) {
	s := newScripted(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "its body")
	}
	s.runs(`function envoy_on_response(h) h:headers():add("x-ran", "1") end`)
	eventually.True(t, "the script", func() bool {
		resp, _ := s.asks(http.MethodGet, "/200", "")
		return resp.Header.Get("X-Ran") != ""
	})
	for _, status := range []int{299, 418, 599, 600, 999} {
		resp, body := s.asks(http.MethodGet, fmt.Sprint("/", status), "")
		require.Equal(t, status, resp.StatusCode)
		require.Equal(t, "its body", body)
	}
}

// oneByOne asks twice on one connection, and wants two answers.
func oneByOne(t *testing.T, w *world, dialled, method, path string) {
	t.Helper()
	c, in := raw(t, w.caller(clientID), dialled)
	for _, header := range []string{"", "Connection: close\r\n"} {
		_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: web\r\n%s\r\n", method, path, header)
		require.NoError(t, err)
	}
	got, err := io.ReadAll(in)
	require.NoError(t, err, "%s %s: %q", method, path, got)
	rest := bufio.NewReader(bytes.NewReader(got))
	for range 2 {
		resp, err := http.ReadResponse(rest, &http.Request{Method: method})
		require.NoError(t, err, "%s %s: %q", method, path, got)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err, "%s %s: %q", method, path, got)
	}
	left, err := io.ReadAll(rest)
	require.NoError(t, err)
	require.Empty(t, left, "%s %s: %q", method, path, got)
}

// forging answers with a body, or with the status that its path ends with.
func forging(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/204"):
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(r.URL.Path, "/304"):
		w.WriteHeader(http.StatusNotModified)
	default:
		_, _ = io.WriteString(w, forged)
	}
}

func scriptsThatForge(t *testing.T) (w *world, dialled string, paths []string) {
	w = newWorld(t)
	e, _ := w.pod(appID, http.HandlerFunc(forging))
	w.backend(web, model.ProtocolHTTP, e)
	var rules []model.Rule
	for path, source := range map[string]string{
		"/to204":      `function envoy_on_response(h) h:headers():replace(":status", "204") end`,
		"/to304":      `function envoy_on_response(h) h:headers():replace(":status", "304") end`,
		"/late204":    `function envoy_on_response(h) h:body() h:headers():replace(":status", "204") end`,
		"/respond204": `function envoy_on_request(h) h:respond({[":status"] = "204"}, forged) end`,
		"/respond304": `function envoy_on_request(h) h:respond({[":status"] = "304"}, forged) end`,
		"/respond200": `function envoy_on_request(h) h:respond({[":status"] = "200"}, forged) end`,
		"/body":       `function envoy_on_response(h) h:body():setBytes(forged) end`,
		"/body/204":   `function envoy_on_response(h) h:body():setBytes(forged) end`,
		"/body/304":   `function envoy_on_response(h) h:body():setBytes(forged) end`,
		"/fails/204":  `function envoy_on_response(h) error("x") end`,
	} {
		source = fmt.Sprintf("local forged = %q\n", forged) + source
		rules = append(rules, rule(at(model.MatchExact, path), filters(model.Filter{Extension: &model.Extension{
			Name: "script", Lua: &model.Lua{Source: source},
		}}), to(web, 1)))
		paths = append(paths, path)
	}
	return w, w.serve(web, true, &model.RouteTable{Default: pointers(rules)}), paths
}

func processorThatForges(t *testing.T) (w *world, dialled string, paths []string) {
	g, p := newProcessed(t)
	p.does(func(q *ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse {
		if q.GetResponseHeaders() != nil {
			replace := changing(forged)
			replace.Status = ext_procv3.CommonResponse_CONTINUE_AND_REPLACE
			return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_ResponseHeaders{
				ResponseHeaders: &ext_procv3.HeadersResponse{Response: replace},
			}}
		}
		for code, path := range map[typev3.StatusCode]string{204: "/204", 304: "/304"} {
			for _, h := range q.GetRequestHeaders().GetHeaders().GetHeaders() {
				if h.GetKey() == ":path" && string(h.GetRawValue()) == path {
					return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_ImmediateResponse{
						ImmediateResponse: &ext_procv3.ImmediateResponse{
							Status: &typev3.HttpStatus{Code: code}, Body: []byte(forged),
						},
					}}
				}
			}
		}
		return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_RequestHeaders{
			RequestHeaders: &ext_procv3.HeadersResponse{},
		}}
	})
	g.processes(model.Processor{Request: model.Processed{Headers: true}, Response: model.Processed{Headers: true}})
	return g.world, g.name, []string{"/204", "/304", "/replaced"}
}

// authorizerThatForges is asked by a rule, or by a policy.
func authorizerThatForges(byPolicy bool) func(*testing.T) (*world, string, []string) {
	adds := headerOptions("Content-Length", "3")
	adds[0].AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	passes := map[string][]*corev3.HeaderValueOption{
		"/length": headerOptions("Content-Length", "3"), "/no-length": headerOptions("content-length", "0"), "/lengths": adds,
		"/status/100": headerOptions(":status", "100"), "/status/204": headerOptions(":status", "204"),
	}
	decide := func(_ context.Context, a *authv3.AttributeContext) *authv3.CheckResponse {
		path := a.GetRequest().GetHttp().GetPath()
		if headers, ok := passes[path]; ok {
			return yes(&authv3.OkHttpResponse{ResponseHeadersToAdd: headers})
		}
		var code int32
		if _, err := fmt.Sscanf(path, "/%d", &code); err != nil {
			return nil
		}
		return denied(typev3.StatusCode(code), forged)
	}
	return func(t *testing.T) (*world, string, []string) {
		service := &authorizer{}
		service.decides(decide)
		g := newGuarded(t, model.ProtocolHTTP2, service.server())
		ask := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second}
		if byPolicy {
			b := to(web, 1)
			b.Guards = []model.Guard{{Asked: []model.ExternalAuth{ask}}}
			g.doesWith(model.RouteTable{Guards: b.Guards, Default: pointers([]model.Rule{rule(below("/"), nil, b)})})
		} else {
			g.asks(ask)
		}
		return g.world, g.name, append(slices.Sorted(maps.Keys(passes)),
			"/204", "/304", "/403", "/100", "/101", "/103", "/199", "/600", "/1")
	}
}

func faultsThatForge(status uint32) func(t *testing.T) (w *world, dialled string, paths []string) {
	return func(t *testing.T) (w *world, dialled string, paths []string) {
		w = newWorld(t)
		return w, w.serve(web, true, &model.RouteTable{
			Requests: model.Requests{Abort: &model.Abort{Status: status, Percent: 100}},
		}), []string{"/"}
	}
}
