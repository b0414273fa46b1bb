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
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestExternalAuthorization: what an AuthenticationPolicy has asked is asked of requests whose tokens are good, on the
// ways that lead to what it guards, and failureMode says what is without an answer.
func TestExternalAuthorization(t *testing.T) {
	s := newShop(t)
	service := &authorizer{}
	of, _ := s.pod(sessionsID, service.server())
	s.backend(sessions, model.ProtocolHTTP2, of)
	issuer := newIssuer(t, "https://login.example", "one", jose.ES256)
	tokenPolicy := byTokens("web", false, issuer.provider(t))
	ask := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second}
	guarded := func(a ...model.ExternalAuth) []model.Guard { return []model.Guard{{Asked: a}} }
	c := s.caller(clientID).client(t, s.authenticate(guarded(ask), tokenPolicy), nil)
	get := func(path string, headers ...string) reply { return withHeaders(t, c, path, headers...) }
	good := "authorization: Bearer " + issuer.token(nil)
	service.decides(func(_ context.Context, a *authv3.AttributeContext) *authv3.CheckResponse {
		if a.GetRequest().GetHttp().GetPath() == "/no" {
			return denied(typev3.StatusCode_Forbidden, "no")
		}
		return yes(&authv3.OkHttpResponse{Headers: headerOptions("X-User", "alice")})
	})
	eventually.True(t, "the first answer", func() bool { return get("/yes", good).Header.Get("X-User") == "alice" })
	require.Equal(t, http.StatusForbidden, get("/no", good).status)
	asked := service.count()
	require.Equal(t, http.StatusUnauthorized, get("/yes").status)
	require.Equal(t, asked, service.count(), "of a request without a token")

	t.Run("ways", func(t *testing.T) {
		to1, to2 := to(webV1, 1), to(webV2, 1)
		to1.Guards = guarded(ask)
		split := rule(below("/split"), nil, to1, to2)
		u := s.tableOf(model.RouteTable{
			Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Guards: guarded(ask),
			Default: pointers([]model.Rule{split, rule(below("/free"), nil, to2), rule(below("/"), nil, to1)}),
		})
		s.apply(u)
		s.acknowledged(u)
		eventually.True(t, "the free way", func() bool { return get("/free").Header.Get("X-User") == "" })
		seen := map[string]bool{}
		for range 50 {
			r := get("/split")
			require.Equal(t, r.Name == "v1", r.Header.Get("X-User") == "alice", r.Name)
			seen[r.Name] = true
		}
		require.Len(t, seen, 2)
	})
	t.Run("without an answer", func(t *testing.T) {
		s.endpoints(sessions)
		open, refused := ask, ask
		open.Open, refused.Refused = true, true
		other := ask
		other.Service = plain
		for what, tc := range map[string]struct {
			guards []model.Guard
			want   int
		}{
			"closed":          {guarded(ask), http.StatusServiceUnavailable},
			"open":            {guarded(open), http.StatusOK},
			"not to be asked": {guarded(refused), http.StatusServiceUnavailable},
			"two":             {append(guarded(ask), guarded(other)...), http.StatusServiceUnavailable},
		} {
			s.guard(tc.guards, rule(below("/"), nil, to(webV1, 1)))
			eventually.True(t, what, func() bool { return get("/yes").status == tc.want })
			require.Equal(t, tc.want, get("/yes").status, what)
		}
	})
}

// TestExternalAuthorizationBodies: all that are asked see the whole body, or none is asked; whatever has the request
// wait meanwhile. Upgrades aren't waited for.
func TestExternalAuthorizationBodies(t *testing.T) {
	service, slow := &authorizer{}, &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	other := model.ServicePort{Namespace: "auth", Service: "slow", Port: 81}
	of, _ := g.pod(sessionsID, slow.server())
	g.backend(other, model.ProtocolHTTP2, of)
	service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
		return yes(&authv3.OkHttpResponse{})
	})
	slow.decides(func(ctx context.Context, _ *authv3.AttributeContext) *authv3.CheckResponse {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // in which the body comes
		}
		return yes(&authv3.OkHttpResponse{})
	})
	ask := model.ExternalAuth{Service: sessions, GRPC: true, Timeout: 20 * time.Second, MaxBody: 64}
	first := model.ExternalAuth{Service: other, GRPC: true, Timeout: 20 * time.Second}
	guards := []model.Guard{{Asked: []model.ExternalAuth{ask}}}
	for what, most := range map[string]uint32{"the first sees none": 0, "the first sees less": 32, "and more": 128} {
		first.MaxBody = most
		b := to(web, 1)
		b.Guards = guards
		g.doesWith(model.RouteTable{
			Guards: guards, Default: pointers([]model.Rule{rule(below("/"), filters(model.Filter{ExternalAuth: &first}), b)}),
		})
		whole := strings.Repeat("x", int(model.MostShown(ask, first)))
		eventually.True(t, what, func() bool {
			return g.post(whole, false) == http.StatusOK && service.last().GetRequest().GetHttp().GetBody() == whole &&
				slow.last().GetRequest().GetHttp().GetBody() == whole[:min(len(whole), int(most))]
		})
		asked, served := service.count(), g.app.Requests.Load()
		for _, inPieces := range []bool{false, true} {
			require.Equal(t, http.StatusRequestEntityTooLarge, g.post(whole+"x", inPieces), what)
		}
		require.Equal(t, asked, service.count(), what)
		require.Equal(t, served, g.app.Requests.Load(), what)
		r := do(t, g.client, http.MethodGet, "http://web/", "Connection", "Upgrade", "Upgrade", "websocket")
		require.Equal(t, http.StatusOK, r.status, what)
	}
}
