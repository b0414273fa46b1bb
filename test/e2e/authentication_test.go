// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// tokenParameter is where tokens of the matrix are: in the URL, so that one client asks with several.
	tokenParameter = "token"
	// headerAuthorizedFor is set by `tool authorize`: whom it took for the caller.
	headerAuthorizedFor = "X-Authorized-For"
	// keysPath is where a keyServer serves keys.
	keysPath = "/keys.json"
)

// issuer signs tokens with a key of its own.
type issuer struct {
	t      *testing.T
	name   string
	signer jose.Signer
	// keys is its set of public keys, in JSON.
	keys string
}

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	key := jose.JSONWebKey{Key: private, KeyID: "one", Algorithm: string(jose.ES256), Use: "sig"}
	options := (&jose.SignerOptions{}).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	require.NoError(t, err)
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	require.NoError(t, err)
	return &issuer{t: t, name: name, signer: signer, keys: string(keys)}
}

// token is good for an hour, unless claims say otherwise.
func (i *issuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{"iss": i.name, "aud": "app", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	out, err := jwt.Signed(i.signer).Claims(all).Serialize()
	require.NoError(i.t, err)
	return out
}

// provider has the issuer's keys in the policy.
func (i *issuer) provider(name string, change ...func(*v1alpha1.JWTProvider)) v1alpha1.JWTProvider {
	p := v1alpha1.JWTProvider{
		Name: name, Issuer: i.name, Audiences: []string{"app"}, JWKS: v1alpha1.JWKS{Inline: &i.keys},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// served has them fetched, each second, from a keyServer.
func (i *issuer) served(name, server string, change ...func(*v1alpha1.JWTProvider)) v1alpha1.JWTProvider {
	p := i.provider(name, change...)
	p.JWKS = v1alpha1.JWKS{Remote: &v1alpha1.RemoteJWKS{
		URI: "https://keys.example" + keysPath, BackendRef: port80(server),
		CacheDuration: &metav1.Duration{Duration: time.Second},
	}}
	return p
}

// port80 of a Service.
func port80(service string) gwv1.BackendObjectReference {
	return backend(service).BackendObjectReference
}

// keyServer is a pod of the mesh that serves the keys of an issuer, behind a Service of its name.
func (s *space) keyServer(name string, of *issuer) {
	s.t.Helper()
	s.server(name, arguments("serve", "--name="+name, "--page="+keysPath+"="+of.keys))
	s.service(name, name)
}

// authorizer is a pod of the mesh that lets all requests pass but those below pathBad, behind a Service of its name.
func (s *space) authorizer(name string) {
	s.t.Helper()
	s.server(name, arguments("authorize", "--refuse="+pathBad))
	s.service(name, name, func(svc *corev1.Service) { svc.Spec.Ports[0].AppProtocol = new("kubernetes.io/h2c") })
}

// ofService targets one.
func ofService(name string) []v1alpha1.AuthenticationTarget {
	return []v1alpha1.AuthenticationTarget{{Kind: "Service", Name: gwv1.ObjectName(name)}}
}

// byTokens requires a token of one of the providers.
func byTokens(service string, providers ...v1alpha1.JWTProvider) v1alpha1.AuthenticationPolicySpec {
	return v1alpha1.AuthenticationPolicySpec{
		TargetRefs: ofService(service), JWT: &v1alpha1.JWTAuthentication{Providers: providers},
	}
}

// byAuthorizer asks an authorizer.
func byAuthorizer(
	service, asked string, protocol v1alpha1.ExternalAuthorizationProtocol,
) v1alpha1.AuthenticationPolicySpec {
	return v1alpha1.AuthenticationPolicySpec{
		TargetRefs:            ofService(service),
		ExternalAuthorization: &v1alpha1.ExternalAuthorization{Protocol: protocol, BackendRef: port80(asked)},
	}
}

// guarded is a namespace with a client and a server that a policy guards, by the waypoint that this brings.
func guarded(t *testing.T, spec v1alpha1.AuthenticationPolicySpec, more func(*space)) (
	*space, *v1alpha1.AuthenticationPolicy,
) {
	t.Helper()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.service("headless", "server", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	more(s)
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	p := &v1alpha1.AuthenticationPolicy{ObjectMeta: metaOf("server"), Spec: spec}
	s.create(p)
	s.enforced(p)
	return s, p
}

// nowhereElse: no other address leads to the server, not even for who may pass at its Service.
func (s *space) nowhereElse(flags ...string) {
	s.t.Helper()
	other := enrolled(s.t)
	address := s.pod("server").Status.PodIP
	for _, url := range []string{
		"http://" + net.JoinHostPort(address, "8080") + pathGood, "http://headless:8080" + pathGood,
		"http://" + other.listing(address, nil) + pathGood,
	} {
		s.refuses("client", url, flags...)
	}
}

// status of an answer.
func (s *space) status(url string, flags ...string) int {
	s.t.Helper()
	a, err := s.get("client", url, flags...)
	require.NoError(s.t, err)
	return a.Status
}

// guardedAtOnce: as soon as a policy is Enforced nobody gets in who mayn't, and a moment later hears why.
func (s *space) guardedAtOnce(status int, url string) {
	s.t.Helper()
	got := s.many("client", 20, url)
	require.Zero(s.t, got.of("server"), "%v", got)
	s.becomes(status, url)
}

// becomes waits for the status of an answer.
func (s *space) becomes(status int, url string, flags ...string) {
	s.t.Helper()
	eventually.Passes(s.t, "the status of "+url, func(look require.TestingT) {
		a, err := s.get("client", url, flags...)
		require.NoError(look, err)
		require.Equal(look, status, a.Status, a.Body)
	})
}

// TestTokensOfACluster: nobody gets in without a token whose key a pod of the mesh serves. Keys change while proxies
// run, and hold while their server is away.
func TestTokensOfACluster(t *testing.T) {
	t.Parallel()
	first, second := newIssuer(t, "https://login.example"), newIssuer(t, "https://login.example")
	const url, user = "http://server" + pathGood, "X-User"
	s, policy := guarded(t, byTokens("server", first.served("login", "keys", func(p *v1alpha1.JWTProvider) {
		p.ClaimsToHeaders = []v1alpha1.JWTClaimHeader{{Claim: "sub", Header: user}}
	})), func(s *space) { s.keyServer("keys", first); s.captured("keys") })
	bearer := func(of *issuer, claims map[string]any) []string {
		return []string{"-H", "Authorization:Bearer " + of.token(claims)}
	}

	s.guardedAtOnce(http.StatusUnauthorized, url)
	a := s.answers("client", url, "server", bearer(first, nil)...)
	require.Equal(t, "ann", a.Headers.Get(user))
	require.Empty(t, a.Headers.Get("Authorization"), "the application doesn't get the token")
	a = s.answers("client", url, "server", append(bearer(first, nil), "-H", user+":bob")...)
	require.Equal(t, []string{"ann"}, a.Headers.Values(user))
	for what, flags := range map[string][]string{
		"of another key":      bearer(second, nil),
		"expired":             bearer(first, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"of another issuer":   bearer(first, map[string]any{"iss": "https://other.example"}),
		"that is no token":    {"-H", "Authorization:Bearer none"},
		"of another scheme":   {"-H", "Authorization:Basic YW5uOmFubg=="},
		"at an odd parameter": {"-H", "X-Token:" + first.token(nil)},
	} {
		require.Equal(t, http.StatusUnauthorized, s.status(url, flags...), what)
	}
	require.Equal(t, http.StatusForbidden, s.status(url, bearer(first, map[string]any{"aud": "other"})...))
	s.nowhereElse(bearer(first, nil)...)

	keys := &deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: "keys"}}
	former := s.pod("keys")
	edit(t, keys, func() { arguments("serve", "--name=keys", "--page="+keysPath+"="+second.keys)(keys) })
	eventually.True(t, "nobody serves the former keys", func() bool { // a pod that ends is asked where there is no other
		return apierrors.IsNotFound(world.client.Get(t.Context(), client.ObjectKeyFromObject(&former), &former))
	})
	s.becomes(http.StatusOK, url, bearer(second, nil)...)
	s.becomes(http.StatusUnauthorized, url, bearer(first, nil)...)
	s.scale("keys", 0)
	for range 5 {
		require.Equal(t, http.StatusOK, s.status(url, bearer(second, nil)...), "keys hold without their server")
	}
	require.Equal(t, http.StatusUnauthorized, s.status(url))

	require.NoError(t, world.client.Delete(t.Context(), policy))
	s.answers("client", url, "server")
}

// TestAnAuthorizationServiceOfACluster: a pod of the mesh is asked about each request, by gRPC and by HTTP, and learns
// who calls. Without its answer nobody gets in, unless the policy says so.
func TestAnAuthorizationServiceOfACluster(t *testing.T) {
	t.Parallel()
	const good, bad = "http://server" + pathGood, "http://server" + pathBad
	s, policy := guarded(t, byAuthorizer("server", "authorizer", v1alpha1.ExternalAuthorizationByGRPC), func(s *space) {
		s.authorizer("authorizer")
		s.service("by-http", "authorizer")
		s.captured("authorizer")
	})
	s.guardedAtOnce(http.StatusForbidden, bad)
	me := identityOf(s, "client")
	require.Equal(t, me, s.answers("client", good, "server").Headers.Get(headerAuthorizedFor))
	s.nowhereElse()

	change := func(change func(*v1alpha1.ExternalAuthorization)) {
		t.Helper()
		edit(t, policy, func() { change(policy.Spec.ExternalAuthorization) })
		s.enforced(policy)
	}
	change(func(e *v1alpha1.ExternalAuthorization) {
		e.Protocol, e.BackendRef = v1alpha1.ExternalAuthorizationByHTTP, port80("by-http")
		e.HTTP = &v1alpha1.ExternalAuthorizationHTTP{AllowedResponseHeaders: []string{headerAuthorizedFor}}
	})
	require.Equal(t, http.StatusForbidden, s.status(bad))
	a := s.answers("client", good, "server", "-H", headerAuthorizedFor+":somebody else")
	require.Len(t, a.Headers.Values(headerAuthorizedFor), 1)
	require.Contains(t, a.Headers.Get(headerAuthorizedFor), "URI="+me)

	s.scale("authorizer", 0)
	s.becomes(http.StatusServiceUnavailable, good)
	require.Equal(t, http.StatusServiceUnavailable, s.status(bad))
	change(func(e *v1alpha1.ExternalAuthorization) { e.FailureMode = v1alpha1.FailureModeOpen })
	s.becomes(http.StatusOK, good)
	s.nowhereElse()
	change(func(e *v1alpha1.ExternalAuthorization) { e.FailureMode = v1alpha1.FailureModeClosed })
	s.scale("authorizer", 1)
	s.captured("authorizer")
	s.becomes(http.StatusForbidden, bad)

	// Nobody passes the service while the waypoint that asks it is replaced.
	steady := s.steady("client", bad, "--timeout", "2s")
	replaced(t, s.name, names.ComponentWaypoint, nil, client.GracePeriodSeconds(1))
	s.becomes(http.StatusOK, good)
	total := steady.end()
	require.Zero(t, total.of("server"), "%v", total)
	require.Positive(t, total["403"], "%v", total)
}
