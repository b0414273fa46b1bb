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
	s.apply(u)
	if len(s.ports) > 0 { // else nothing asks for it yet
		s.acknowledged(u)
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
		"a bad one besides":          {[]string{bearer(good), bearer(i.token(map[string]any{"exp": past}))}, 401},
		"a bad one before":           {[]string{bearer(other.token(nil)), bearer(good)}, 401},
		"two in one header":          {[]string{bearer(good) + ", bearer " + other.token(nil)}, 401},
		"another scheme besides":     {[]string{bearer(good), "Authorization: bearer " + other.token(nil)}, 401},
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
