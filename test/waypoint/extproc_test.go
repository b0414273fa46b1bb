// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ext_procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/model"
)

// processor is a service of Envoy's protocol. It answers each message by the function, and not at all where that
// returns nil.
type processor struct {
	ext_procv3.UnimplementedExternalProcessorServer

	mu     sync.Mutex
	answer func(*ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse
	seen   []*ext_procv3.ProcessingRequest
}

func (p *processor) Process(s ext_procv3.ExternalProcessor_ProcessServer) error {
	for {
		q, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		p.mu.Lock()
		p.seen = append(p.seen, q)
		answer := p.answer(q)
		p.mu.Unlock()
		if answer == nil {
			<-s.Context().Done()
			return nil
		}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}

// does sets how it answers, and forgets what it has seen.
func (p *processor) does(f func(*ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.seen = f, nil
}

func (p *processor) asked() []*ext_procv3.ProcessingRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *processor) server() http.Handler {
	g := grpc.NewServer()
	ext_procv3.RegisterExternalProcessorServer(g, p)
	return g
}

// changing goes on with changes of headers, and a body if there is one.
func changing(body string, headers ...string) *ext_procv3.CommonResponse {
	out := &ext_procv3.CommonResponse{HeaderMutation: &ext_procv3.HeaderMutation{}}
	for n := 0; n < len(headers); n += 2 {
		out.HeaderMutation.SetHeaders = append(out.HeaderMutation.SetHeaders, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: headers[n], RawValue: []byte(headers[n+1])},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	if body != "" {
		out.BodyMutation = &ext_procv3.BodyMutation{Mutation: &ext_procv3.BodyMutation_Body{Body: []byte(body)}}
	}
	return out
}

// steering tries to change all that no extension may.
func steering() *ext_procv3.CommonResponse {
	out := changing("", "x-user", "alice", "x-other", "1", ":path", "/admin", ":method", "PUT", ":authority", "other",
		"host", "other", "x-envoy-retry-on", "5xx", "x-forwarded-client-cert", "URI=spiffe://x",
		"x_forwarded_client_cert", "URI=spiffe://x", "content-length", "1",
		"x-fairway-port", "80.other.shop", "x-fairway-authentication", "x")
	out.ClearRouteCache = true
	return out
}

func newProcessed(t *testing.T) (*guarded, *processor) {
	p := &processor{}
	p.does(nil)
	return newGuarded(t, model.ProtocolHTTP2, p.server()), p
}

// processes has all requests of the port go through the service.
func (g *guarded) processes(p model.Processor) {
	g.t.Helper()
	p.Service = sessions
	if p.Timeout == 0 {
		p.Timeout = 20 * time.Second
	}
	g.rules(rule(below("/"), filters(model.Filter{Extension: &model.Extension{Name: "process", Processor: &p}}),
		to(web, 1)))
}

// TestProcessor: a service sees what it is to see, says what is to be changed, and can change nothing else.
func TestProcessor(t *testing.T) {
	g, p := newProcessed(t)
	s := &scripted{world: g.world, client: g.client}
	whole := model.Processed{Headers: true, Body: model.BodyBuffered}
	p.does(func(q *ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse {
		switch {
		case q.GetRequestHeaders() != nil:
			return &ext_procv3.ProcessingResponse{
				Response: &ext_procv3.ProcessingResponse_RequestHeaders{
					RequestHeaders: &ext_procv3.HeadersResponse{Response: steering()},
				},
				DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
					"envoy.filters.http.jwt_authn": structpb.NewStringValue("forged"),
				}},
			}
		case q.GetRequestBody() != nil:
			return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_RequestBody{
				RequestBody: &ext_procv3.BodyResponse{Response: changing(string(q.GetRequestBody().GetBody()) + "!")},
			}}
		case q.GetResponseHeaders() != nil:
			return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_ResponseHeaders{
				ResponseHeaders: &ext_procv3.HeadersResponse{Response: changing("", "x-answered", "yes")},
			}}
		}
		return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_ResponseBody{
			ResponseBody: &ext_procv3.BodyResponse{Response: changing("[" + string(q.GetResponseBody().GetBody()) + "]")},
		}}
	})
	for _, only := range [][]string{nil, {"x-user", "host", "x-envoy-retry-on"}} {
		g.processes(model.Processor{Request: whole, Response: whole, Changes: only})
		s.until(http.StatusOK, "/")
		resp, body := s.asks(http.MethodPost, "/path", "hello")
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, "hello!", g.app.last())
		require.Equal(t, only == nil, resp.Header.Get("X-Answered") == "yes")
		require.True(t, strings.HasPrefix(body, "[") && strings.HasSuffix(body, "]"), body)
		require.Contains(t, body, `"X-User":["alice"]`)
		require.Equal(t, only == nil, strings.Contains(body, "X-Other"), body)
		require.NotContains(t, body, "Content-Length")
		require.Contains(t, body, `"URI":"/path"`)
		require.Contains(t, body, `"Method":"POST"`)
		require.Contains(t, body, `"Host":"web"`)
		require.Contains(t, body, `"X-Forwarded-Client-Cert":["URI=`+clientID+`"]`)
		require.NotContains(t, body, "spiffe://x")
		require.NotContains(t, body, "X-Envoy")
		require.NotContains(t, body, "X-Fairway")
	}
	told := p.asked()[0]
	require.Contains(t, told.String(), clientID, "who calls")
	require.NotContains(t, told.String(), "x-fairway-port")
}

// TestProcessorWithoutAnswer: what the service doesn't answer for is refused, unless it was to be open; and a service
// may answer by itself.
func TestProcessorWithoutAnswer(t *testing.T) {
	g, p := newProcessed(t)
	s := &scripted{world: g.world, client: g.client}
	headers := model.Processed{Headers: true}
	p.does(func(*ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse { return nil })
	g.processes(model.Processor{Request: headers, Timeout: 50 * time.Millisecond})
	s.until(http.StatusGatewayTimeout, "/")
	require.Zero(t, g.app.Requests.Load())
	g.processes(model.Processor{Request: headers, Timeout: 50 * time.Millisecond, Open: true})
	s.until(http.StatusOK, "/")
	p.does(func(*ext_procv3.ProcessingRequest) *ext_procv3.ProcessingResponse {
		return &ext_procv3.ProcessingResponse{Response: &ext_procv3.ProcessingResponse_ImmediateResponse{
			ImmediateResponse: &ext_procv3.ImmediateResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_PaymentRequired}, Body: []byte("no"),
			},
		}}
	})
	require.Equal(t, "no", s.until(http.StatusPaymentRequired, "/"))
	g.endpoints(sessions)
	g.processes(model.Processor{Request: headers})
	s.until(http.StatusServiceUnavailable, "/")
}

// TestExtensionsTogether: several extensions of a rule that all wait see a request one after the other, and an answer
// the other way round.
func TestExtensionsTogether(t *testing.T) {
	s := newScripted(t)
	script := func(n string) string {
		return `function envoy_on_request(h) local b = h:body() b:setBytes(b:getBytes(0, b:length()) .. "` + n + `") end
function envoy_on_response(h) h:body() h:headers():add("x-order", "` + n + `") end`
	}
	s.runs(script("1"), script("2"), script("3"), script("4"))
	s.until(http.StatusOK, "/")
	resp, _ := s.asks(http.MethodPost, "/", "0")
	require.Equal(t, "01234", s.app.last())
	require.Equal(t, "4,3,2,1", strings.Join(resp.Header.Values("X-Order"), ","))
}
