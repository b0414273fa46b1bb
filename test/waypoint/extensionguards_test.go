// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestExtensionsPassNoPolicy: what policies decide is decided of the request that the application gets, so a script
// that changes headers gets nobody past them; and it can't say what only a token says.
func TestExtensionsPassNoPolicy(t *testing.T) {
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
	runs := func(does string) {
		script := model.Extension{Name: "script", Lua: &model.Lua{Source: request(does)}}
		s.guard(guards, rule(below("/"), filters(model.Filter{Extension: &script}), to(webV1, 1)))
	}
	const admin, token = "x-role: admin", "authorization: Bearer "
	require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/", admin).status)
	runs("handle:headers():replace('x-role', 'admin')")
	eventually.True(t, "a header that a policy denies", func() bool {
		return withHeaders(t, c, "/").status == http.StatusForbidden
	})
	runs("handle:headers():add('x_subject', 'root')")
	eventually.True(t, "a claim in another spelling", func() bool {
		return withHeaders(t, c, "/", admin).status == http.StatusForbidden && withHeaders(t, c, "/").status ==
			http.StatusForbidden
	})
	runs("handle:headers():remove('x-role') handle:headers():replace('x-subject', 'root')")
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
	runs("handle:headers():replace('authorization', 'Bearer forged')")
	eventually.True(t, "a token that is no good", func() bool {
		return withHeaders(t, c, "/", token+issuer.token(nil)).status == http.StatusUnauthorized
	})
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
		Guards: guards, Default: []model.Rule{rule(below("/"), filters(model.Filter{Extension: &script}), b)},
	})
	eventually.True(t, "a body that still fits", func() bool { return g.post("abcd", false) == http.StatusOK })
	require.Equal(t, "abcd"+strings.Repeat("y", 60), service.last().GetRequest().GetHttp().GetBody())
	served := g.app.Requests.Load()
	for _, inPieces := range []bool{false, true} {
		require.Equal(t, http.StatusRequestEntityTooLarge, g.post("abcde", inPieces))
	}
	require.Equal(t, served, g.app.Requests.Load())
}
