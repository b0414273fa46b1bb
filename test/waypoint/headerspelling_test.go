// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// asCGI is what an application without hyphens reads: the values of one header under any of its spellings.
func asCGI(h http.Header, name string) (out []string) {
	for n, values := range h {
		if strings.ReplaceAll(strings.ToLower(n), "_", "-") == name {
			out = append(out, values...)
		}
	}
	return out
}

// otherSpellings of a name, each hyphen and underscore either way.
func otherSpellings(name string) []string {
	all := []string{""}
	for _, c := range name {
		var longer []string
		for _, s := range all {
			if c == '-' || c == '_' {
				longer = append(longer, s+"-", s+"_")
			} else {
				longer = append(longer, s+string(c))
			}
		}
		all = longer
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == name })
}

// inEverySpelling is a request's head with a header of which all spellings say what a caller makes up.
func inEverySpelling(name, value string) (out []string) {
	for _, s := range append(otherSpellings(name), name) {
		out = append(out, s+": "+value, strings.ToUpper(s)+": "+value)
	}
	return out
}

// TestCallersAreNotSpelledAround: an application that takes underscores for hyphens reads of nobody but the mesh who
// calls and from where, whether a caller or a route says so. Its own headers with underscores it gets.
func TestCallersAreNotSpelledAround(t *testing.T) {
	s := newShop(t)
	var set []model.Header
	for _, name := range otherSpellings("x-forwarded-client-cert") {
		set = append(set, model.Header{Name: name, Value: "forged"})
	}
	dialled := s.guard(nil,
		rule(below("/set"), filters(model.Filter{RequestHeaders: &model.HeaderChange{Set: set}}), to(web, 1)),
		rule(below("/"), nil, to(web, 1)))
	c := s.caller(clientID).client(t, dialled, nil)
	headers := []string{"X_Tenant: mine", "x_forwarded_by: mine", "X_Envoy: mine"}
	for _, name := range []string{"x-forwarded-client-cert", "x-envoy-original-path", "x-envoy-nobody-knows"} {
		headers = append(headers, inEverySpelling(name, "forged")...)
	}
	for _, name := range append(otherSpellings("x-forwarded-for"), otherSpellings("x-forwarded-proto")...) {
		headers = append(headers, name+": forged")
	}
	for _, path := range []string{"/", "/set"} {
		r := withHeaders(t, c, path, headers...)
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, []string{"URI=" + clientID}, asCGI(r.Header, "x-forwarded-client-cert"), path)
		for name, values := range r.Header {
			require.NotContains(t, strings.Join(values, " "), "forged", "%s: %s", path, name)
		}
		for _, name := range []string{"x-tenant", "x-forwarded-by", "x-envoy"} {
			require.Equal(t, []string{"mine"}, asCGI(r.Header, name), path)
		}
	}
}

// TestCallersAreNotInTrailers: what says who calls is in no trailer, which some applications read as headers. Others
// pass.
func TestCallersAreNotInTrailers(t *testing.T) {
	s := &shop{world: newWorld(t)}
	e, _ := s.pod(appID, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(r.Trailer)
	}))
	s.backend(web, model.ProtocolHTTP, e)
	c, in := raw(t, s.caller(clientID), s.guard(nil))
	trailers := append([]string{"X-Sum: 1", "x_sum_of: 2"}, inEverySpelling("x-forwarded-client-cert", "forged")...)
	trailers = append(trailers, inEverySpelling("x-forwarded-for", "forged")...)
	trailers = append(trailers, inEverySpelling("x-envoy-original-path", "forged")...)
	var announced []string
	for _, line := range trailers {
		name, _, _ := strings.Cut(line, ": ")
		announced = append(announced, name)
	}
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: "+strings.Join(announced, ", ")+
		"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"+strings.Join(trailers, "\r\n")+"\r\n\r\n")
	require.NoError(t, err)
	resp, body := answerTo(t, in)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var got http.Header
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.NotContains(t, body, "forged")
	require.Equal(t, []string{"1"}, asCGI(got, "x-sum"))
	require.Equal(t, []string{"2"}, asCGI(got, "x-sum-of"))
}

// TestNoTrailerGoesAroundPolicies: what policies read of requests, and what they vouch for, comes in no trailer either,
// nor what only an authorization service of a rule sets.
func TestNoTrailerGoesAroundPolicies(t *testing.T) {
	told := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Trailer.Write(w)
	}
	byHeader := accessPolicy("d", true, fromAccount("", &model.AccessRequest{Headers: []model.AccessHeader{
		{Name: "x-role", Value: &model.StringMatch{Type: model.MatchExact, Value: "admin"}},
	}}))
	for what, begin := range map[string]func(*testing.T) (*world, string){
		"a policy on requests": func(t *testing.T) (*world, string) {
			s := &shop{world: newWorld(t)}
			e, _ := s.pod(appID, http.HandlerFunc(told))
			s.backend(web, model.ProtocolHTTP, e)
			return s.world, s.guard(onRequests(byHeader), rule(below("/"), nil, to(web, 1)))
		},
		"tokens": func(t *testing.T) (*world, string) {
			s := &shop{world: newWorld(t)}
			e, _ := s.pod(appID, http.HandlerFunc(told))
			s.backend(webV1, model.ProtocolHTTP, e)
			s.backend(web, model.ProtocolHTTP, e)
			issuer := newIssuer(t, "https://login.example", "one", jose.ES256)
			return s.world, s.authenticate([]model.Guard{{}}, byTokens("web", true, issuer.provider(t,
				func(p *model.TokenProvider) { p.Claims = []model.ClaimHeader{{Header: "x-role", Claim: "role"}} })))
		},
		"a rule's authorization": func(t *testing.T) (*world, string) {
			w := newWorld(t)
			e, _ := w.pod(appID, http.HandlerFunc(told))
			w.backend(web, model.ProtocolHTTP, e)
			of, _ := w.pod(sessionsID, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			w.backend(sessions, model.ProtocolHTTP, of)
			return w, w.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{rule(below("/"), filters(model.Filter{
				ExternalAuth: &model.ExternalAuth{Service: sessions, Timeout: 20 * time.Second, Taken: []string{"X-Role"}},
			}), to(web, 1))})})
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, dialled := begin(t)
			c, in := raw(t, w.caller(clientID), dialled)
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: X-Role, x_role"+
				"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Role: admin\r\nx_role: admin\r\n\r\n")
			require.NoError(t, err)
			resp, body := answerTo(t, in)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.NotContains(t, body, "admin")
		})
	}
}

// TestLongNamesAreNotSpelledAround: of names with many hyphens, too, no spelling goes around a rule or passes for a
// claim.
func TestLongNamesAreNotSpelledAround(t *testing.T) {
	const claim, role, tier = "x-auth-request-preferred-username", "x-real-role-of-user", "x-tier_of-the-one_user"
	s := newShop(t)
	issuer := newIssuer(t, "https://login.example", "one", jose.ES256)
	tokenPolicy := byTokens("web", true, issuer.provider(t, func(p *model.TokenProvider) {
		p.Claims = []model.ClaimHeader{{Header: claim, Claim: "sub"}}
	}))
	is := func(name, value string) *model.AccessRequest {
		return &model.AccessRequest{Headers: []model.AccessHeader{
			{Name: name, Value: &model.StringMatch{Type: model.MatchExact, Value: value}},
		}}
	}
	guards := onRequests(accessPolicy("d", true, fromAccount("", is(role, "admin"))),
		accessPolicy("a", false, fromAccount("", is(tier, "gold"))))
	c := s.caller(clientID).client(t, s.authenticate(guards, tokenPolicy), nil)
	const gold = tier + ": gold"
	require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/", gold, role+": admin").status)
	require.Equal(t, http.StatusOK, withHeaders(t, c, "/", gold, role+": other", claim+": root").status)
	for _, name := range otherSpellings(role) {
		require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/", gold, name+": admin").status, name)
		require.Equal(t, http.StatusOK, withHeaders(t, c, "/", gold, name+": other").status, name)
	}
	for _, name := range append(otherSpellings(claim), otherSpellings(tier)...) {
		require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/", gold, name+": gold").status, name)
	}
	r := withHeaders(t, c, "/", gold, "x_real_roles_of_user: admin", "authorization: Bearer "+issuer.token(nil))
	require.Equal(t, http.StatusOK, r.status)
	require.Len(t, asCGI(r.Header, claim), 1)
}

// TestServicesAreNotSpelledAround: what only an authorization service by HTTP may set comes from it alone, in every
// spelling; and what it is shown it is shown in every spelling.
func TestServicesAreNotSpelledAround(t *testing.T) {
	const user = "x-auth-user-of-the-very-long-name"
	var mu sync.Mutex
	var asked http.Header
	g := newGuarded(t, model.ProtocolHTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = r.Header.Clone()
		w.Header().Set(user, "alice")
	}))
	g.asks(model.ExternalAuth{Taken: []string{user, "X_Auth-Role", "X-Tenant"}, Shown: []string{"X-Tenant"}})
	forged := []string{
		"x_auth_user_of_the_very_long_name: root", "x_auth-user-of-the_very-long-name: root", user + ": root",
		"X-Auth-Role: root", "X_Auth_Role: root", "X_Auth_Roles: mine", "X-Tenant: a", "x_tenant: b",
		"X_Forwarded_Client_Cert: root",
	}
	var got reply
	eventually.True(t, "the service", func() bool {
		got = withHeaders(t, g.client, "/", forged...)
		return len(asCGI(got.Header, user)) == 1
	})
	require.Equal(t, []string{"alice"}, asCGI(got.Header, user))
	require.Empty(t, asCGI(got.Header, "x-auth-role"))
	require.Equal(t, []string{"mine"}, asCGI(got.Header, "x-auth-roles"))
	require.ElementsMatch(t, []string{"a", "b"}, asCGI(got.Header, "x-tenant"))
	mu.Lock()
	defer mu.Unlock()
	require.ElementsMatch(t, []string{"a", "b"}, asCGI(asked, "x-tenant"))
	require.Equal(t, []string{"URI=" + clientID}, asCGI(asked, "x-forwarded-client-cert"))
}

// TestServicesSpellNoCaller: an authorization service by gRPC can't set who calls either, in any spelling.
func TestServicesSpellNoCaller(t *testing.T) {
	service := &authorizer{}
	g := newGuarded(t, model.ProtocolHTTP2, service.server())
	service.decides(func(_ context.Context, a *authv3.AttributeContext) *authv3.CheckResponse {
		if a.GetRequest().GetHttp().GetPath() == "/no" {
			return denied(typev3.StatusCode_Forbidden, "no")
		}
		return yes(&authv3.OkHttpResponse{Headers: headerOptions(
			"x_forwarded_client-cert", "forged", "content_length", "forged", "x_envoy_original_path", "forged", "x_user", "ann",
		)})
	})
	g.asks(model.ExternalAuth{GRPC: true})
	var got reply
	eventually.True(t, "the service", func() bool {
		got = withHeaders(t, g.client, "/")
		return len(asCGI(got.Header, "x-user")) == 1
	})
	for name, values := range got.Header {
		require.NotContains(t, strings.Join(values, " "), "forged", name)
	}
	require.Equal(t, http.StatusForbidden, withHeaders(t, g.client, "/no").status)
}
