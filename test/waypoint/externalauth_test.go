// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

var (
	sessions   = model.ServicePort{Namespace: "auth", Service: "sessions", Port: 81}
	sessionsID = names.SPIFFEID(trustDomain, "auth", "sessions")
)

// guarded is an application behind an authorization service in the mesh, and a client.
type guarded struct {
	*world
	app    *reading
	client *http.Client
	name   string // to ask for
}

// reading is an application that keeps what it read, and answers what it got.
type reading struct {
	echo
	mu   sync.Mutex
	body string
}

func (r *reading) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	r.body = string(b)
	r.mu.Unlock()
	r.echo.ServeHTTP(w, q)
}

func (r *reading) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body
}

// newGuarded starts the service from a handler.
func newGuarded(t *testing.T, protocol model.Protocol, service http.Handler) *guarded {
	g := &guarded{world: newWorld(t), app: &reading{}}
	e, _ := g.pod(appID, g.app)
	g.backend(web, model.ProtocolHTTP, e)
	of, _ := g.pod(sessionsID, service)
	g.backend(sessions, protocol, of)
	g.name = g.serve(web, true, nil)
	g.client = g.caller(clientID).client(t, g.name, nil)
	return g
}

// asks has every request of the port asked about.
func (g *guarded) asks(a model.ExternalAuth) {
	g.t.Helper()
	a.Service = sessions
	if a.Timeout == 0 {
		a.Timeout = 20 * time.Second
	}
	g.rules(rule(below("/"), filters(model.Filter{ExternalAuth: &a}), to(web, 1)))
}

func (g *guarded) rules(rules ...model.Rule) {
	g.t.Helper()
	g.doesWith(model.RouteTable{Default: pointers(rules)})
}

// post sends a body of a known length, or in pieces.
func (g *guarded) post(body string, inPieces bool) int {
	g.t.Helper()
	var from io.Reader = strings.NewReader(body)
	if inPieces {
		from = io.MultiReader(strings.NewReader(body[:len(body)/2]), strings.NewReader(body[len(body)/2:]))
	}
	resp, err := g.client.Post("http://web/", "application/json", from)
	require.NoError(g.t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	require.NoError(g.t, resp.Body.Close())
	return resp.StatusCode
}

// authorizer is a service of Envoy's protocol.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer

	mu     sync.Mutex
	decide func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse
	asked  []*authv3.AttributeContext
}

func (a *authorizer) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.mu.Lock()
	a.asked = append(a.asked, r.GetAttributes())
	decide := a.decide
	a.mu.Unlock()
	if answer := decide(ctx, r.GetAttributes()); answer != nil {
		return answer, nil
	}
	return nil, status.Error(codes.Internal, "no answer")
}

func (a *authorizer) decides(f func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decide, a.asked = f, nil
}

func (a *authorizer) last() *authv3.AttributeContext {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		return nil
	}
	return a.asked[len(a.asked)-1]
}

func (a *authorizer) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// server is the service as a handler of h2c.
func (a *authorizer) server() http.Handler {
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, a)
	return s
}

func headerOptions(pairs ...string) (out []*corev3.HeaderValueOption) {
	for n := 0; n < len(pairs); n += 2 {
		out = append(out, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: pairs[n], Value: pairs[n+1]},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return out
}

// yes lets a request pass, with changes.
func yes(ok *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &statuspb.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

func denied(code typev3.StatusCode, body string, headers ...string) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: code}, Body: body, Headers: headerOptions(headers...),
		}},
	}
}

// TestExternalAuthByGRPC: the service is told what was asked for and by whom, and its answer holds, but for what steers
// the proxy.
func TestExternalAuthByGRPC(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	get := func(header ...string) reply { return do(t, g.client, http.MethodGet, "http://web/a?b=c", header...) }
	changes := func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return yes(&authv3.OkHttpResponse{
			Headers: headerOptions(
				"X-User", "alice", "X-Envoy-Retry-On", "5xx", "X-Fairway-Port", "443._.db.shop", "Host", "elsewhere",
				":path", "/elsewhere", "X-Forwarded-Client-Cert", "URI=spiffe://forged", "Transfer-Encoding", "chunked"),
			HeadersToRemove:      []string{"X-Secret", "Host", "X-Forwarded-Client-Cert"},
			ResponseHeadersToAdd: headerOptions("X-Seen", "yes"),
		})
	}
	service.decides(changes)
	g.asks(model.ExternalAuth{GRPC: true})
	eventually.True(t, "the first question", func() bool { return get().status == http.StatusOK && service.count() > 0 })

	t.Run("lets pass", func(t *testing.T) {
		r := get("X-User", "forged", "X-Secret", "s", "X-Kept", "k")
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, []string{"alice"}, r.Header["X-User"])
		require.Equal(t, "k", r.Header.Get("X-Kept"))
		require.Equal(t, "yes", r.header.Get("X-Seen"))
		require.Equal(t, "web", r.Host)
		require.Equal(t, "/a?b=c", r.URI)
		require.Equal(t, "URI="+clientID, r.Header.Get("X-Forwarded-Client-Cert"))
		for _, name := range []string{"X-Secret", "X-Envoy-Retry-On", "X-Fairway-Port", "Transfer-Encoding"} {
			require.NotContains(t, r.Header, name)
		}
	})
	t.Run("changes the query", func(t *testing.T) {
		var key, value string
		service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
			return yes(&authv3.OkHttpResponse{
				QueryParametersToSet:    []*corev3.QueryParameter{{Key: key, Value: value}},
				QueryParametersToRemove: []string{"b"},
			})
		})
		defer service.decides(changes)
		key, value = "d", "e"
		require.Equal(t, "/a?d=e", get().URI)
		served := g.app.Requests.Load()
		for _, bad := range [][2]string{
			{"d", "e HTTP/1.1\r\nX-User: alice"},
			{"d\r\nX-User: alice\r\nX", "e"},
			{"d", "e#/admin"},
			{"d", "e\x00"},
			{"d", "e f"},
		} {
			key, value = bad[0], bad[1]
			require.Equal(t, http.StatusInternalServerError, get().status, bad)
		}
		require.Equal(t, served, g.app.Requests.Load())
	})
	t.Run("is told", func(t *testing.T) {
		_ = get("X-Kept", "k")
		a := service.last()
		require.Equal(t, clientID, a.GetSource().GetPrincipal())
		h := a.GetRequest().GetHttp()
		require.Equal(t, []string{"GET", "/a?b=c", "web", ""},
			[]string{h.GetMethod(), h.GetPath(), h.GetHost(), h.GetBody()})
		require.Equal(t, "k", h.GetHeaders()["x-kept"])
		for name := range h.GetHeaders() {
			require.False(t, strings.HasPrefix(name, "x-envoy-") || name == "x-fairway-port", name)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
			return denied(typev3.StatusCode_Unauthorized, "who are you?", "WWW-Authenticate", "Bearer", "Content-Length", "3")
		})
		before := g.app.Requests.Load()
		r := get()
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.Equal(t, "who are you?", r.body)
		require.Equal(t, "Bearer", r.header.Get("WWW-Authenticate"))
		require.Equal(t, before, g.app.Requests.Load())
	})
	t.Run("is shown", func(t *testing.T) {
		service.decides(changes)
		g.asks(model.ExternalAuth{GRPC: true, Shown: []string{"X-Token"}})
		eventually.True(t, "fewer headers", func() bool {
			get("X-Token", "t", "X-Kept", "k")
			h := service.last().GetRequest().GetHttp().GetHeaders()
			return h["x-token"] == "t" && h["x-kept"] == ""
		})
	})
	t.Run("bodies", func(t *testing.T) {
		g.asks(model.ExternalAuth{GRPC: true, MaxBody: 64})
		body := `{"a":"` + strings.Repeat("ä", 28) + `"}`
		require.Len(t, body, 64)
		eventually.True(t, "a body", func() bool {
			return g.post(body, false) == http.StatusOK && service.last().GetRequest().GetHttp().GetBody() == body
		})
		require.Equal(t, http.StatusOK, g.post(body, true))
		require.Equal(t, body, service.last().GetRequest().GetHttp().GetBody())
		require.Equal(t, body, g.app.last())
		asked, served := service.count(), g.app.Requests.Load()
		for _, inPieces := range []bool{false, true} {
			require.Equal(t, http.StatusRequestEntityTooLarge, g.post(body+" ", inPieces))
			require.Equal(t, http.StatusRequestEntityTooLarge, g.post(strings.Repeat(body, 1000), inPieces))
		}
		require.Equal(t, asked, service.count())
		require.Equal(t, served, g.app.Requests.Load())
	})
}

// TestExternalAuthWithoutAnswer: who can't be asked about, doesn't pass.
func TestExternalAuthWithoutAnswer(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	get := func() int { return do(t, g.client, http.MethodPost, "http://web/").status }
	end := make(chan struct{})
	defer close(end)
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		<-end // not the deadline, which is the proxy's, too
		return yes(&authv3.OkHttpResponse{})
	})
	refused := func(when string) {
		t.Helper()
		eventually.True(t, when, func() bool { return get() == http.StatusServiceUnavailable })
		served := g.app.Requests.Load()
		require.Equal(t, http.StatusServiceUnavailable, get())
		require.Equal(t, served, g.app.Requests.Load(), when)
	}
	g.asks(model.ExternalAuth{GRPC: true, Timeout: 100 * time.Millisecond})
	refused("slow")
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse { return nil })
	refused("an error")
	for _, byGRPC := range []bool{true, false} {
		g.asks(model.ExternalAuth{GRPC: byGRPC})
		g.endpoints(sessions)
		refused("no endpoints")
		ask := model.ExternalAuth{Service: gone, GRPC: byGRPC, Timeout: time.Second}
		g.rules(rule(below("/"), filters(model.Filter{ExternalAuth: &ask}), to(web, 1)))
		refused("no cluster")
		ask.Service, ask.Invalid = sessions, true
		g.rules(rule(below("/"), filters(model.Filter{ExternalAuth: &ask}), to(web, 1)))
		refused("not to be asked")
	}
}

// TestExternalAuthByHTTP: a request like the one it is about is sent, and 200 lets that pass.
func TestExternalAuthByHTTP(t *testing.T) {
	var mu sync.Mutex
	var asked *http.Request
	var seen string
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	answers := func(f http.HandlerFunc) {
		mu.Lock()
		defer mu.Unlock()
		answer = f
	}
	g := newGuarded(t, model.ProtocolHTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		asked, seen = r, string(b)
		f := answer
		mu.Unlock()
		f(w, r)
	}))
	get := func(header ...string) reply { return do(t, g.client, http.MethodGet, "http://web/a?b=c", header...) }
	setting := func(pairs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for n := 0; n < len(pairs); n += 2 {
				w.Header().Set(pairs[n], pairs[n+1])
			}
			_, _ = io.WriteString(w, "fine")
		}
	}
	answers(setting("X-User", "alice", "X-Other", "o"))
	g.asks(model.ExternalAuth{Path: "/check/", Shown: []string{"X-Token"}, Taken: []string{"X-User", "X-Role"}})
	eventually.True(t, "the first question", func() bool { return get().Header.Get("X-User") == "alice" })

	t.Run("is told", func(t *testing.T) {
		get("X-Token", "t", "X-Kept", "k", "Authorization", "Bearer b", "X-Forwarded-Client-Cert", "URI=forged")
		require.Equal(t, []string{"GET", "/check/a?b=c", "web", "t", "Bearer b", "", "URI=" + clientID, "0"}, []string{
			asked.Method, asked.RequestURI, asked.Host, asked.Header.Get("X-Token"), asked.Header.Get("Authorization"),
			asked.Header.Get("X-Kept"), strings.Join(asked.Header["X-Forwarded-Client-Cert"], " and "),
			asked.Header.Get("Content-Length"),
		})
	})
	t.Run("nobody pretends", func(t *testing.T) {
		r := get("X-User", "forged", "X-Role", "admin", "x-rOLE", "root", "X-Other", "mine")
		require.Equal(t, []string{"alice"}, r.Header["X-User"])
		require.NotContains(t, r.Header, "X-Role")
		require.Equal(t, "mine", r.Header.Get("X-Other"))
	})
	t.Run("refuses", func(t *testing.T) {
		for code, want := range map[int]int{
			http.StatusForbidden: http.StatusForbidden, http.StatusFound: http.StatusFound,
			http.StatusNoContent: http.StatusNoContent, http.StatusInternalServerError: http.StatusServiceUnavailable,
		} {
			answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://login.example")
				w.WriteHeader(code)
			})
			before := g.app.Requests.Load()
			r := get()
			require.Equal(t, want, r.status)
			require.Equal(t, before, g.app.Requests.Load())
			if code == http.StatusFound {
				require.Equal(t, "https://login.example", r.header.Get("Location"))
			}
		}
	})
	t.Run("all headers", func(t *testing.T) {
		answers(setting("X-User", "alice", "Content-Type", "text/plain", "X-Envoy-Retry-On", "5xx", "Connection", "close"))
		g.asks(model.ExternalAuth{MaxBody: 1 << 10})
		body := "\xff\x00" + strings.Repeat("x", 100)
		eventually.True(t, "a body", func() bool { return g.post(body, false) == http.StatusOK && seen == body })
		require.Equal(t, body, g.app.last())
		r := do(t, g.client, http.MethodPost, "http://web/", "Content-Type", "application/json", "X-User", "forged")
		require.Equal(t, []string{"alice"}, r.Header["X-User"])
		require.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.NotContains(t, r.Header, "X-Envoy-Retry-On")
		require.Equal(t, http.StatusRequestEntityTooLarge, g.post(strings.Repeat("x", 1<<10+1), false))
	})
}

// TestExternalAuthBeforeLimits: who is refused takes nothing from a limit, and a limit counts by what the service says.
func TestExternalAuthBeforeLimits(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	refuse := func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return denied(typev3.StatusCode_Forbidden, "")
	}
	service.decides(refuse)
	a := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second}
	g.doesWith(model.RouteTable{
		Default:  pointers([]model.Rule{rule(below("/"), filters(model.Filter{ExternalAuth: &a}), to(web, 1))}),
		Requests: model.Requests{LocalLimit: &model.LocalLimit{Requests: 2, Unit: time.Hour}},
	})
	get := func() int { return do(t, g.client, http.MethodGet, "http://web/").status }
	eventually.True(t, "a refusal", func() bool { return get() == http.StatusForbidden })
	for range 5 {
		require.Equal(t, http.StatusForbidden, get())
	}
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return yes(&authv3.OkHttpResponse{})
	})
	require.Equal(t, []int{200, 200, 429}, []int{get(), get(), get()})
}
