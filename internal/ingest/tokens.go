// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	defaultKeysCached  = 5 * time.Minute
	defaultKeysTimeout = 5 * time.Second
)

// bearer is where a token is looked for unless a policy says otherwise (RFC 6750, 2.1).
var bearer = model.TokenHeader{Name: "authorization", Prefix: "Bearer "}

// tokens that a policy of a namespace asks for, why some server of keys can't be asked, and why the policy can't be
// carried out; "" if it can.
func (i *Ingest) tokens(
	c *memo.Ctx, namespace string, jwt *v1alpha1.JWTAuthentication,
) (out *model.Tokens, unresolved *Verdict, invalid string) {
	out = &model.Tokens{Optional: !ptr.Deref(jwt.Required, true)}
	if len(jwt.Providers) == 0 {
		return nil, nil, "jwt has no providers, so that no token is good"
	}
	for n := range jwt.Providers {
		p := &jwt.Providers[n]
		provider, err := tokenProvider(p)
		if err != nil {
			return nil, nil, fmt.Sprintf("provider %s: %v", p.Name, err)
		}
		if r := p.JWKS.Remote; r != nil {
			remote, bad := i.remoteKeys(c, namespace, r)
			if bad != nil {
				bad.Message = fmt.Sprintf("provider %s: %s; until then, requests with its tokens are refused", p.Name, bad.Message)
				unresolved = cmp.Or(unresolved, bad)
			}
			provider.Remote = remote
		}
		out.Providers = append(out.Providers, provider)
	}
	return out, unresolved, ""
}

// headerName and otherName are what proxies take for names of headers, and of parameters and cookies. The API server
// checks as much; policies may be older than the check.
var (
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_|~-]{1,128}$")
	otherName   = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	valuePrefix = regexp.MustCompile(`^[A-Za-z0-9_-]* ?$`)
)

func tokenProvider(p *v1alpha1.JWTProvider) (out model.TokenProvider, err error) {
	out = model.TokenProvider{
		Name: p.Name, Issuer: p.Issuer, Audiences: p.Audiences, Params: p.FromParams, Cookies: p.FromCookies,
		Forward: ptr.Deref(p.Forward, len(p.FromCookies) > 0),
	}
	if p.Issuer == "" {
		return out, errors.New("the issuer is empty")
	}
	for _, h := range p.FromHeaders {
		if model.ManySpellings(string(h.Name)) {
			return out, errors.New(tooManySpellings(string(h.Name)))
		}
		if !ownHeader(h.Name) || !valuePrefix.MatchString(h.ValuePrefix) {
			return out, fmt.Errorf("tokens can't be in header %q with prefix %q", h.Name, h.ValuePrefix)
		}
		out.Headers = append(out.Headers, model.TokenHeader{Name: lower(h.Name), Prefix: h.ValuePrefix})
	}
	for _, name := range append(append([]string{}, p.FromParams...), p.FromCookies...) {
		if !otherName.MatchString(name) {
			return out, fmt.Errorf("%q can't be the name of a parameter or cookie here", name)
		}
	}
	if out.Headers == nil && out.Params == nil && out.Cookies == nil {
		out.Headers = []model.TokenHeader{bearer}
	}
	for _, claim := range p.ClaimsToHeaders {
		if model.ManySpellings(string(claim.Header)) {
			return out, errors.New(tooManySpellings(string(claim.Header)))
		}
		if !ownHeader(claim.Header) || claim.Claim == "" {
			return out, fmt.Errorf("claim %q can't be in header %q", claim.Claim, claim.Header)
		}
		out.Claims = append(out.Claims, model.ClaimHeader{Header: lower(claim.Header), Claim: claim.Claim})
	}
	switch {
	case (p.JWKS.Inline == nil) == (p.JWKS.Remote == nil):
		return out, errors.New("jwks needs exactly one of inline and remote")
	case p.JWKS.Inline != nil:
		out.Keys = *p.JWKS.Inline
		return out, badKeys(out.Keys)
	}
	return out, nil
}

func lower(name v1alpha1.JWTHeaderName) string { return strings.ToLower(string(name)) }

// ownHeader tells whether a header means nothing to the proxy, in any spelling.
func ownHeader(name v1alpha1.JWTHeaderName) bool {
	if !headerName.MatchString(string(name)) {
		return false
	}
	spelled := model.HeaderSpelled(string(name))
	switch spelled {
	case "host", "connection", "content-length", "cookie", "forwarded", "keep-alive", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade", "via":
		return false
	}
	for _, prefix := range []string{"x-forwarded-", "x-envoy-", "x-fairway-"} {
		if strings.HasPrefix(spelled, prefix) {
			return false
		}
	}
	return true
}

// badKeys says why tokens can't be verified with a set of keys. Secret keys are refused: with one that signs, whoever
// may read policies could issue tokens.
func badKeys(text string) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return fmt.Errorf("jwks.inline is no JSON Web Key Set (RFC 7517): %w", err)
	}
	if len(set.Keys) == 0 {
		return errors.New("jwks.inline has no key that proxies can verify signatures with")
	}
	for n := range set.Keys {
		if !set.Keys[n].IsPublic() {
			return fmt.Errorf("jwks.inline must have public keys only, but key %d (kid %q) is secret: take it out, and use "+
				"another one, for who could read the policy knows it", n, set.Keys[n].KeyID)
		}
		if !set.Keys[n].Valid() {
			return fmt.Errorf("jwks.inline: key %d (kid %q) is not a valid key", n, set.Keys[n].KeyID)
		}
	}
	return nil
}

// remoteKeys of a policy of a namespace; nil where they can't be asked for, and why.
func (i *Ingest) remoteKeys(
	c *memo.Ctx, namespace string, r *v1alpha1.RemoteJWKS,
) (out *model.RemoteKeys, bad *Verdict) {
	kind := cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil))
	port, bad := i.referredPort(c, kind, namespace, r.BackendRef)
	if bad != nil {
		return nil, bad
	}
	if u, err := url.Parse(r.URI); err != nil || u.Host == "" {
		return nil, &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: fmt.Sprintf("uri %q is no URI", r.URI)}
	}
	return &model.RemoteKeys{
		URI: r.URI, Service: port, TLS: i.SpeaksTLS.Get(c, port),
		CacheFor: cmp.Or(ptr.Deref(durationOf(r.CacheDuration), 0), defaultKeysCached),
		Timeout:  cmp.Or(ptr.Deref(durationOf(r.Timeout), 0), defaultKeysTimeout),
	}, nil
}

// fetchedKeys are the keys of a policy that proxies fetch.
func fetchedKeys(a model.Authentication) (out []FetchedKeys) {
	if a.Tokens == nil {
		return nil
	}
	for _, p := range a.Tokens.Providers {
		if r := p.Remote; r != nil {
			cluster := names.RequestsTo(r.Service.Namespace, r.Service.Service, r.Service.Port, r.TLS)
			out = append(out, FetchedKeys{
				Provider: p.Name, Server: r.Service,
				Source: names.KeySource(a.Policy.Namespace, cluster, r.URI, r.CacheFor, r.Timeout),
			})
		}
	}
	return out
}

// askableKeys are tokens as a waypoint verifies them: none is good of a provider whose server of keys it may not ask.
func (i *Ingest) askableKeys(c *memo.Ctx, by asker, t *model.Tokens) *model.Tokens {
	if t == nil {
		return nil
	}
	out := *t
	for n, p := range t.Providers {
		if p.Remote == nil || i.unaskableAs(c, by, p.Remote.Service) == "" {
			continue
		}
		if &out.Providers[0] == &t.Providers[0] {
			out.Providers = slices.Clone(t.Providers)
		}
		out.Providers[n].Remote = nil
	}
	return &out
}

// unaskableKeys is about the first provider whose server of keys the waypoint of a port may not ask.
func (i *Ingest) unaskableKeys(c *memo.Ctx, at model.ServicePort, t *model.Tokens) *Verdict {
	if t == nil {
		return nil
	}
	for _, p := range t.Providers {
		if p.Remote == nil {
			continue
		}
		if why := i.unaskable(c, at, p.Remote.Service, at.Namespace); why != "" {
			return unasking(fmt.Sprintf("provider %s: %s", p.Name, why), "requests with its tokens are refused")
		}
	}
	return nil
}
