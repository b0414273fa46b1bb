// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// change of a header of a request by an extension: set, added or removed.
type change struct{ does, name, value string }

func set(name, value string) change { return change{"set", name, value} }

// scripting is a script that makes changes.
func scripting(_ *testing.T, changes ...change) model.Extension {
	var does strings.Builder
	for _, c := range changes {
		switch c.does {
		case "set":
			fmt.Fprintf(&does, "handle:headers():replace(%q, %q) ", c.name, c.value)
		case "add":
			fmt.Fprintf(&does, "handle:headers():add(%q, %q) ", c.name, c.value)
		default:
			fmt.Fprintf(&does, "handle:headers():remove(%q) ", c.name)
		}
	}
	return model.Extension{Name: "script", Lua: &model.Lua{Source: request(does.String())}}
}

// compiled is a module that makes changes, at the headers and once more at each piece of the body.
func compiled(t *testing.T, changes ...change) model.Extension {
	p := wasmtest.Plugin()
	var does []wasmtest.Op
	for _, c := range changes {
		switch c.does {
		case "set":
			does = append(does, p.Set(wasmtest.Request, c.name, c.value))
		case "add":
			does = append(does, p.Add(wasmtest.Request, c.name, c.value))
		default:
			does = append(does, p.Remove(wasmtest.Request, c.name))
		}
	}
	w := moduleOf(t, p.On(wasmtest.OnRequest, does...).On(wasmtest.OnRequestBody, does...))
	return model.Extension{Name: "module", Wasm: &w}
}

// TestExtensionsPassNoPolicy: what policies decide is decided of the request that the application gets, so an extension
// that changes headers gets nobody past them; and it can't say what only a token says.
func TestExtensionsPassNoPolicy(t *testing.T) {
	t.Run("Lua", func(t *testing.T) { passNoPolicy(t, scripting) })
	t.Run("Wasm", func(t *testing.T) { passNoPolicy(t, compiled) })
}

func passNoPolicy(t *testing.T, by func(*testing.T, ...change) model.Extension) {
	s := newShop(t)
	issuer := newIssuer(t, "https://login.example", "one", jose.ES256)
	tokenPolicy := byTokens("web", true, issuer.provider(t, func(p *model.TokenProvider) {
		p.Claims = []model.ClaimHeader{{Header: "x-subject", Claim: "sub"}}
	}))
	guards := []model.Guard{{Application: []model.AccessPolicy{{
		Name: model.PolicyName{Namespace: "shop", Name: "no-admins"}, Deny: true,
		Rules: []model.AccessRule{{Request: &model.AccessRequest{
			Headers: []model.AccessHeader{{Name: "x-role", Value: &model.StringMatch{Type: model.MatchExact, Value: "admin"}}},
		}}},
	}}}}
	c := s.caller(clientID).client(t, s.authenticate(guards, tokenPolicy), nil)
	runs := func(changes ...change) {
		e := by(t, changes...)
		s.guard(guards, rule(below("/"), filters(model.Filter{Extension: &e}), to(webV1, 1)))
	}
	const admin, token = "x-role: admin", "authorization: Bearer "
	require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/", admin).status)
	runs(set("x-role", "admin"))
	eventually.True(t, "a header that a policy denies", func() bool {
		return withHeaders(t, c, "/").status == http.StatusForbidden
	})
	runs(change{"add", "x_subject", "root"})
	eventually.True(t, "a claim in another spelling", func() bool {
		return withHeaders(t, c, "/", admin).status == http.StatusForbidden && withHeaders(t, c, "/").status ==
			http.StatusForbidden
	})
	runs(change{does: "remove", name: "x-role"}, set("x-subject", "root"))
	var got reply
	eventually.True(t, "a request without that header", func() bool {
		got = withHeaders(t, c, "/", admin)
		return got.status == http.StatusOK
	})
	require.Empty(t, got.Header["X-Role"])
	require.Empty(t, got.Header["X-Subject"], "of a request without a token")
	got = withHeaders(t, c, "/", token+issuer.token(nil))
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, []string{"ann"}, got.Header["X-Subject"])
	runs(set("authorization", "Bearer forged"))
	eventually.True(t, "a token that is no good", func() bool {
		return withHeaders(t, c, "/", token+issuer.token(nil)).status == http.StatusUnauthorized
	})
}

// TestModulesChangeNothingLate: while a policy has somebody asked, a module that is shown the body can't change what is
// asked about, nor anything that goes on.
func TestModulesChangeNothingLate(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	p := wasmtest.Plugin()
	late := wasmtest.Ops(p.Set(wasmtest.Request, "x-role", "admin"), p.Set(wasmtest.Request, ":path", "/admin"))
	w := moduleOf(t, p.On(wasmtest.OnRequest, p.Set(wasmtest.Request, "x-ran", "1")).On(wasmtest.OnRequestBody, late).
		On(wasmtest.OnResponse, late))
	asked, decided := make(chan struct{}, 1), make(chan struct{})
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		asked <- struct{}{}
		<-decided
		return yes(&authv3.OkHttpResponse{})
	})
	guards := []model.Guard{{Asked: []model.ExternalAuth{{Service: sessions, GRPC: true, Timeout: 20 * time.Second}}}}
	b := to(web, 1)
	b.Guards = guards
	g.doesWith(model.RouteTable{
		Guards: guards, Default: pointers([]model.Rule{rule(below("/"), filters(through(w)), b)}),
	})
	body, more := io.Pipe()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/", body)
	require.NoError(t, err)
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := g.client.Do(q)
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	<-asked
	_, err = more.Write([]byte("a piece that comes while the service is asked"))
	require.NoError(t, err)
	close(decided)
	require.NoError(t, more.Close())
	resp := <-answered
	require.NotNil(t, resp)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(got), `"X-Ran":["1"]`)
	require.Contains(t, string(got), `"URI":"/"`)
	require.NotContains(t, string(got), "X-Role")
	require.Equal(t, "/", service.last().GetRequest().GetHttp().GetPath())
}

// TestExtensionsShowBodiesWhole: the service of a policy sees all that an extension has made of a body, or it is
// refused.
func TestExtensionsShowBodiesWhole(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return yes(&authv3.OkHttpResponse{})
	})
	ask := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second, MaxBody: 64}
	guards := []model.Guard{{Asked: []model.ExternalAuth{ask}}}
	script := model.Extension{Name: "script", Lua: &model.Lua{Source: request(
		"local b = handle:body() b:setBytes(b:getBytes(0, b:length()) .. ('y'):rep(60))")}}
	b := to(web, 1)
	b.Guards = guards
	g.doesWith(model.RouteTable{
		Guards: guards, Default: pointers([]model.Rule{rule(below("/"), filters(model.Filter{Extension: &script}), b)}),
	})
	eventually.True(t, "a body that still fits", func() bool { return g.post("abcd", false) == http.StatusOK })
	require.Equal(t, "abcd"+strings.Repeat("y", 60), service.last().GetRequest().GetHttp().GetBody())
	served := g.app.Requests.Load()
	for _, inPieces := range []bool{false, true} {
		require.Equal(t, http.StatusRequestEntityTooLarge, g.post("abcde", inPieces))
	}
	require.Equal(t, served, g.app.Requests.Load())
}
