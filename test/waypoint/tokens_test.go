// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// issuer signs tokens.
type issuer struct {
	t      testing.TB
	name   string
	signer jose.Signer
	public jose.JSONWebKey
}

// newIssuer signs with a new key.
func newIssuer(t testing.TB, name, kid string, alg jose.SignatureAlgorithm) *issuer {
	t.Helper()
	var private crypto.Signer
	var err error
	switch alg {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	require.NoError(t, err)
	key := jose.JSONWebKey{Key: private, KeyID: kid, Algorithm: string(alg), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	return &issuer{t: t, name: name, signer: signer, public: key.Public()}
}

// keys are those of issuers, in JSON.
func keys(t testing.TB, of ...*issuer) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, i := range of {
		set.Keys = append(set.Keys, i.public)
	}
	out, err := json.Marshal(set)
	require.NoError(t, err)
	return string(out)
}

// token for the web, for an hour, unless claims say otherwise; nil takes one away.
func (i *issuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{
		"iss": i.name, "aud": "web", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	out, err := jwt.Signed(i.signer).Claims(all).Serialize()
	require.NoError(i.t, err)
	return out
}

// byTokens is a policy of the shop with a provider.
func byTokens(name string, optional bool, providers ...model.TokenProvider) model.Authentication {
	return model.Authentication{
		Policy: model.PolicyName{Namespace: "shop", Name: name},
		Tokens: &model.Tokens{Optional: optional, Providers: providers},
	}
}

func (i *issuer) provider(t testing.TB, change ...func(*model.TokenProvider)) model.TokenProvider {
	out := model.TokenProvider{
		Name: "main", Issuer: i.name, Audiences: []string{"web"}, Keys: keys(t, i),
		Headers: []model.TokenHeader{{Name: "authorization", Prefix: "Bearer "}},
	}
	for _, f := range change {
		f(&out)
	}
	return out
}

// authenticate has all that the shop's web serves satisfy policies.
func (s *shop) authenticate(guards []model.Guard, policies ...model.Authentication) string {
	s.t.Helper()
	a := model.Authentications{Policies: policies}
	for _, p := range policies {
		for n := range guards {
			guards[n].Authentication = append(guards[n].Authentication, p.Policy)
		}
	}
	a.Sets = append(a.Sets, model.Needed(guards))
	u := tokens(s.t, a)
	s.apply(u...)
	if len(s.ports) > 0 { // else nothing asks for it yet
		s.acknowledged(u...)
	}
	return s.guard(guards, rule(below("/"), nil, to(webV1, 1)))
}

// withHeaders is a request to the web with headers, each of the form "name: value".
func withHeaders(t *testing.T, c *http.Client, path string, headers ...string) reply {
	t.Helper()
	var pairs []string
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		pairs = append(pairs, name, value)
	}
	return do(t, c, "GET", "http://web"+path, pairs...)
}

func segment(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(out)
}

// TestTokens: none passes but a good one.
func TestTokens(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.RS256)
	other := newIssuer(t, "https://login.example", "one", jose.RS256)
	dialled := s.authenticate([]model.Guard{{}}, byTokens("web", false, i.provider(t)))
	c := s.caller(clientID).client(t, dialled, nil)
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	good := i.token(nil)
	parts := strings.Split(good, ".")
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	unsigned := segment(map[string]any{"alg": "none", "typ": "JWT"}) + "." + parts[1] + "."
	altered := segment(map[string]any{"iss": i.name, "aud": "web", "sub": "eve", "exp": future})
	for name, tc := range map[string]struct {
		headers []string
		status  int
	}{
		"good":             {[]string{bearer(good)}, 200},
		"missing":          {nil, 401},
		"empty":            {[]string{bearer("")}, 401},
		"no token":         {[]string{bearer("abc")}, 401},
		"another scheme":   {[]string{"Authorization: Basic YTpi"}, 401},
		"in small letters": {[]string{"Authorization: bearer " + good}, 401},
		"expired":          {[]string{bearer(i.token(map[string]any{"exp": past}))}, 401},
		"without end":      {[]string{bearer(i.token(map[string]any{"exp": nil}))}, 401},
		"not yet good":     {[]string{bearer(i.token(map[string]any{"nbf": future}))}, 401},
		"another issuer":   {[]string{bearer(i.token(map[string]any{"iss": "https://evil.example"}))}, 401},
		"no issuer":        {[]string{bearer(i.token(map[string]any{"iss": nil}))}, 401},
		"another audience": {[]string{bearer(i.token(map[string]any{"aud": "shop"}))}, 403},
		"no audience":      {[]string{bearer(i.token(map[string]any{"aud": nil}))}, 403},
		"several audiences": {
			[]string{bearer(i.token(map[string]any{"aud": []string{"shop", "web"}}))}, 200,
		},
		"another key":                {[]string{bearer(other.token(nil))}, 401},
		"no algorithm":               {[]string{bearer(unsigned)}, 401},
		"another one's signature":    {[]string{bearer(parts[0] + "." + altered + "." + parts[2])}, 401},
		"the public key as a secret": {[]string{bearer(confused(t, i))}, 401},
		"a bad one besides":          {[]string{bearer(good), bearer(i.token(map[string]any{"exp": past}))}, 403},
		"a bad one before":           {[]string{bearer(other.token(nil)), bearer(good)}, 403},
		"two in one header":          {[]string{bearer(good) + ", bearer " + other.token(nil)}, 403},
		"another scheme besides":     {[]string{bearer(good), "Authorization: bearer " + other.token(nil)}, 403},
		"behind another scheme":      {[]string{"Authorization: Token " + other.token(nil) + ", Bearer " + good}, 403},
		"behind another header":      {[]string{"Authorization: Basic YTpi", bearer(good)}, 403},
		"the header of the mesh":     {[]string{"X-Fairway-Authentication: shop/none"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.status, withHeaders(t, c, "/", tc.headers...).status)
		})
	}
}

// confused signs with the public key as if it were a shared secret.
func confused(t testing.TB, i *issuer) string {
	t.Helper()
	secret, err := json.Marshal(i.public)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: i.public.KeyID},
	}, nil)
	require.NoError(t, err)
	out, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": i.name, "aud": "web", "exp": time.Now().Add(time.Hour).Unix(),
	}).Serialize()
	require.NoError(t, err)
	return out
}

func expired(i *issuer) string {
	return i.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
}

// gotHeader is a header of the request as the application got it.
func gotHeader(r reply, name string) string { return strings.Join(r.Header.Values(name), ",") }

// TestOptionalTokens: who has none is nobody, who has a bad one is refused, however it is carried.
func TestOptionalTokens(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	// A policy of somebody else with the same issuer, whose tokens are good for that one only.
	other := newIssuer(t, "https://login.example", "other", jose.ES256)
	p := i.provider(t, func(p *model.TokenProvider) {
		p.Params, p.Cookies, p.Forward = []string{"token"}, []string{"session"}, true
		p.Claims = []model.ClaimHeader{{Header: "x-user", Claim: "sub"}}
	})
	second := newIssuer(t, "https://second.example", "two", jose.RS256)
	p2 := second.provider(t, func(p *model.TokenProvider) {
		p.Name, p.Claims = "second", []model.ClaimHeader{{Header: "x-mail", Claim: "email"}}
	})
	for _, u := range []model.Authentications{{
		Policies: []model.Authentication{byTokens("others", false, other.provider(t)), byTokens("web", true, p, p2)},
		Sets:     [][]model.PolicyName{{{Namespace: "shop", Name: "others"}}, {{Namespace: "shop", Name: "web"}}},
	}} {
		s.apply(tokens(t, u)...)
	}
	dialled := s.guard([]model.Guard{{Authentication: []model.PolicyName{{Namespace: "shop", Name: "web"}}}},
		rule(below("/"), nil, to(webV1, 1)))
	c := s.caller(clientID).client(t, dialled, nil)
	good, bad := i.token(nil), expired(i)
	escaped := "%74oken"
	for name, tc := range map[string]struct {
		path    string
		headers []string
		status  int
		user    string
	}{
		"none":                         {"/", nil, 200, ""},
		"another scheme":               {"/", []string{"Authorization: Basic YTpi"}, 200, ""},
		"a claim by itself":            {"/", []string{"X-User: eve", "X-Mail: eve"}, 200, ""},
		"good":                         {"/", []string{"Authorization: Bearer " + good, "X-User: eve"}, 200, "ann"},
		"a claim with underscores":     {"/", []string{"X_User: eve"}, 403, ""},
		"good, and that":               {"/", []string{"Authorization: Bearer " + good, "x_mail: eve"}, 403, ""},
		"good, another's claim":        {"/", []string{"Authorization: Bearer " + good, "X-Mail: eve"}, 200, "ann"},
		"of the second":                {"/", []string{"Authorization: Bearer " + second.token(nil)}, 200, ""},
		"bad":                          {"/", []string{"Authorization: Bearer " + bad}, 401, ""},
		"of another policy":            {"/", []string{"Authorization: Bearer " + other.token(nil)}, 401, ""},
		"no token":                     {"/", []string{"Authorization: Bearer x"}, 401, ""},
		"small letters":                {"/", []string{"Authorization: bearer " + good}, 401, ""},
		"odd bytes":                    {"/", []string{"Authorization: \xffbearer " + good}, 403, ""},
		"a parameter":                  {"/?a=b&token=" + good, nil, 200, "ann"},
		"a bad parameter":              {"/?token=" + bad, nil, 401, ""},
		"an empty parameter":           {"/?token", nil, 401, ""},
		"an escaped parameter":         {"/?" + escaped + "=" + good, nil, 403, ""},
		"an escaped parameter, bad":    {"/?" + escaped + "=" + bad, nil, 403, ""},
		"a parameter twice":            {"/?token=" + good + "&token=" + bad, nil, 403, ""},
		"a parameter twice, otherwise": {"/?token=" + good + "&" + escaped + "=" + bad, nil, 403, ""},
		"behind a semicolon":           {"/?a=b;token=" + bad, nil, 403, ""},
		"another parameter":            {"/?tokens=" + bad, nil, 200, ""},
		"another parameter's value":    {"/?a=token=" + bad, nil, 200, ""},
		"a cookie":                     {"/", []string{"Cookie: a=b; session=" + good}, 200, "ann"},
		"a bad cookie":                 {"/", []string{"Cookie: session=" + bad}, 401, ""},
		"a cookie twice":               {"/", []string{"Cookie: session=" + good + "; session=" + bad}, 403, ""},
		"a cookie in two headers":      {"/", []string{"Cookie: session=" + good, "Cookie: session=" + bad}, 403, ""},
		"another cookie":               {"/", []string{"Cookie: mysession=" + bad}, 200, ""},
		"good and bad":                 {"/?token=" + bad, []string{"Authorization: Bearer " + good}, 401, ""},
		"bad and good":                 {"/?token=" + good, []string{"Authorization: Bearer " + bad}, 401, ""},
		"good and good":                {"/?token=" + good, []string{"Authorization: Bearer " + good}, 200, "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			r := withHeaders(t, c, tc.path, tc.headers...)
			require.Equal(t, tc.status, r.status, r.body)
			if tc.status != http.StatusOK {
				return
			}
			got := strings.Split(gotHeader(r, "X-User"), ",")
			require.Equal(t, tc.user, got[len(got)-1])
			require.NotContains(t, got, "eve")
			require.Empty(t, gotHeader(r, "X-Mail"))
			require.Empty(t, gotHeader(r, "X-Fairway-Authentication"))
		})
	}
}

// TestWhatTheApplicationGets of a token: nothing unless it is forwarded, and the claims that it is to get.
func TestWhatTheApplicationGets(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	kept := i.provider(t, func(p *model.TokenProvider) { p.Forward = true })
	taken := i.provider(t, func(p *model.TokenProvider) {
		p.Params = []string{"token"}
		p.Claims = []model.ClaimHeader{
			{Header: "x-user", Claim: "sub"},
			{Header: "x-level", Claim: "level"},
			{Header: "x-roles", Claim: "realm.roles"},
			{Header: "x-none", Claim: "none"},
		}
	})
	good := i.token(map[string]any{"level": 7, "realm": map[string]any{"roles": []string{"a", "b"}}})
	dialled := s.authenticate([]model.Guard{{}}, byTokens("web", false, taken))
	c := s.caller(clientID).client(t, dialled, nil)
	for _, path := range []string{"/", "/?a=b&token=" + good} {
		r := withHeaders(t, c, path, "Authorization: Bearer "+good, "X-None: eve")
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.Empty(t, gotHeader(r, "Authorization"))
		require.NotContains(t, r.URI, good)
		require.Contains(t, gotHeader(r, "X-User"), "ann")
		require.Contains(t, gotHeader(r, "X-Level"), "7")
		require.Contains(t, gotHeader(r, "X-Roles"), base64.StdEncoding.EncodeToString([]byte(`["a","b"]`)))
		require.Empty(t, gotHeader(r, "X-None"))
	}
	s.authenticate([]model.Guard{{}}, byTokens("web", false, kept))
	require.Equal(t, "Bearer "+good, gotHeader(withHeaders(t, c, "/", "Authorization: Bearer "+good), "Authorization"))
}

// TestClaims are what policies on requests go by: of tokens that the pods' own policies have verified, and no others.
func TestClaims(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	claim := func(name string, values ...string) model.AccessRule {
		return fromAccount("", &model.AccessRequest{Claims: []model.AccessClaim{{Name: name, Values: values}}})
	}
	token := i.token(map[string]any{
		"scope": "read write", "groups": []string{"dev", "ops"}, "level": 7, "verified": true,
		"realm": map[string]any{"roles": []string{"admin"}, "name": "x"}, "https://a.example/tenant": "t1", "ratio": 0.5,
	})
	web := byTokens("web", true, i.provider(t))
	for name, tc := range map[string]struct {
		rule model.AccessRule
		has  bool
	}{
		"a text":             {claim("sub", "bob", "ann"), true},
		"another text":       {claim("sub", "an"), false},
		"a list":             {claim("groups", "ops"), true},
		"not in the list":    {claim("groups", "dev,ops"), false},
		"a scope":            {claim("scope", "write"), true},
		"not all of a scope": {claim("scope", "read write"), false},
		"a number":           {claim("level", "7"), true},
		"another number":     {claim("level", "70"), false},
		"a fraction":         {claim("ratio", "0.5"), true},
		"true":               {claim("verified", "true"), true},
		"not false":          {claim("verified", "false"), false},
		"nested":             {claim("realm.name", "x"), true},
		"a nested list":      {claim("realm.roles", "admin"), true},
		"a name with dots":   {claim("https://a.example/tenant", "t1"), true},
		"not there":          {claim("none", "x"), false},
		"what holds others":  {claim("realm", "x"), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, deny := range []bool{false, true} {
				dialled := s.authenticate(onRequests(accessPolicy("p", deny, tc.rule)), web)
				c := s.caller(clientID).client(t, dialled, nil)
				want := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}
				require.Equal(t, want[tc.has != deny], withHeaders(t, c, "/", "Authorization: Bearer "+token).status)
				require.Equal(t, want[deny], withHeaders(t, c, "/").status, "without a token")
			}
		})
	}

	// Another policy's token, though it was verified on the way, claims nothing here.
	rules := onRequests(accessPolicy("p", false, claim("sub", "ann")))
	other := newIssuer(t, "https://other.example", "two", jose.ES256)
	policies := []model.Authentication{byTokens("other", true, other.provider(t)), web}
	s.authenticate([]model.Guard{{}}, policies...)
	rules[0].Authentication = []model.PolicyName{web.Policy}
	dialled := s.guard(append(rules, model.Guard{Authentication: []model.PolicyName{policies[0].Policy}}),
		rule(below("/"), nil, to(webV1, 1)))
	c := s.caller(clientID).client(t, dialled, nil)
	require.Equal(t, http.StatusUnauthorized, withHeaders(t, c, "/", "Authorization: Bearer "+other.token(nil)).status)
	require.Equal(t, http.StatusUnauthorized, withHeaders(t, c, "/", "Authorization: Bearer "+i.token(nil)).status)
	require.Equal(t, http.StatusForbidden, withHeaders(t, c, "/").status)
}

// TestTokensOfOthers: policies of one Service change nothing for the requests to another.
func TestTokensOfOthers(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	p := i.provider(t, func(p *model.TokenProvider) {
		p.Params, p.Claims = []string{"token"}, []model.ClaimHeader{{Header: "x-user", Claim: "sub"}}
	})
	guarded := s.authenticate([]model.Guard{{}}, byTokens("web", false, p))
	open := s.serve(webV2, true, &model.RouteTable{})
	c := s.caller(clientID).client(t, open, nil)
	r := do(t, c, "GET", "http://web-v2/?token=a&token=b", "X-User", "bob", "Authorization", "Bearer x")
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "bob", gotHeader(r, "X-User"))
	require.Equal(t, "Bearer x", gotHeader(r, "Authorization"))
	require.Equal(t, http.StatusUnauthorized, withHeaders(t, s.caller(clientID).client(t, guarded, nil), "/").status)
}

// TestTokensOnEveryWay: where requests lead to something that has another policy, both hold, and a token is good for
// both; by the rules of callers' namespaces, too, and where the table has no rule.
func TestTokensOnEveryWay(t *testing.T) {
	s := newShop(t)
	i := newIssuer(t, "https://login.example", "one", jose.ES256)
	v2 := newIssuer(t, "https://v2.example", "two", jose.ES256)
	byWeb := byTokens("web", false, i.provider(t))
	also := byTokens("v2", false, i.provider(t), v2.provider(t, func(p *model.TokenProvider) {
		p.Name, p.Headers = "v2", []model.TokenHeader{{Name: "x-token"}}
	}))
	own := []model.Guard{{Authentication: []model.PolicyName{byWeb.Policy}}}
	both := append([]model.Guard{{Authentication: []model.PolicyName{also.Policy}}}, own...)
	toV1, toV2 := to(webV1, 1), to(webV2, 1)
	toV1.Guards, toV2.Guards = own, both
	foreign := to(webV2, 1)
	foreign.Guards = both[:1]
	s.apply(tokens(t, model.Authentications{
		Policies: []model.Authentication{also, byWeb},
		Sets:     [][]model.PolicyName{{also.Policy}, {also.Policy, byWeb.Policy}, {byWeb.Policy}},
	})...)
	dialled := s.serve(web, true, &model.RouteTable{
		Guards: own,
		Callers: []model.CallerRules{{Namespace: "front", Rules: pointers([]model.Rule{
			rule(below("/v2"), nil, toV2), rule(below("/both"), nil, toV1, toV2), rule(below("/foreign"), nil, foreign),
			rule(below("/away"), filters(model.Filter{Redirect: &model.Redirect{Hostname: "x", StatusCode: 302}})),
		})}},
	})
	mine, theirs := s.caller(clientID).client(t, dialled, nil), s.caller(otherID).client(t, dialled, nil)
	one, two := "Authorization: Bearer "+i.token(nil), "X-Token: "+v2.token(nil)
	for _, tc := range []struct {
		c       *http.Client
		path    string
		headers []string
		status  int
	}{
		{theirs, "/", nil, 401},
		{theirs, "/", []string{one}, 200},
		{theirs, "/", []string{two}, 401},
		{mine, "/nowhere", nil, 401},
		{mine, "/nowhere", []string{one}, 404},
		{mine, "/away", nil, 401},
		{mine, "/v2", nil, 401},
		{mine, "/v2", []string{one}, 200},
		{mine, "/v2", []string{two}, 401},
		{mine, "/v2", []string{one, two}, 200},
		{mine, "/both", nil, 401},
		{mine, "/both", []string{one}, 200},
		{mine, "/foreign", nil, 401},
		{mine, "/foreign", []string{two}, 200},
		{mine, "/foreign", []string{one}, 200},
	} {
		for range 5 { // of several backends, each
			r := withHeaders(t, tc.c, tc.path, tc.headers...)
			require.Equal(t, tc.status, r.status, "%s %v", tc.path, tc.headers)
			require.Empty(t, gotHeader(r, "Authorization"), "what one policy leaves to another is gone in the end")
		}
	}
}
