// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// asking is the bookshop with Services that may be asked, and what some YAML says.
func asking(t *testing.T, text string) *Mesh {
	m := bookshop(t)
	services, err := os.ReadFile("testdata/asked.yaml")
	require.NoError(t, err)
	m.add(t, string(services))
	m.add(t, strings.TrimSpace(text)+"\n")
	return m
}

// asksReviews is shop's request to read reviews, with headers.
func (m *Mesh) asksReviews(t *testing.T, headers ...string) Answer {
	t.Helper()
	q := &Request{Method: "GET", Host: "reviews", Path: "/reviews/1", Headers: http.Header{}}
	for n := 0; n < len(headers); n += 2 {
		q.Headers[headers[n]] = append(q.Headers[headers[n]], headers[n+1])
	}
	a, err := m.Ask(Question{Account: in("shop"), Service: in("reviews"), Request: q})
	require.NoError(t, err)
	return a
}

// stages of a waypoint that an answer has, in order.
func stages(a Answer) (out []string) {
	for _, s := range a.Steps {
		if s.Stage != "" {
			out = append(out, s.Stage)
		}
	}
	return out
}

func (a Answer) stage(t *testing.T, name string) Step {
	t.Helper()
	for _, s := range a.Steps {
		if s.Stage == name {
			return s
		}
	}
	require.Fail(t, "no stage "+name, "%+v", a.Steps)
	return Step{}
}

const authorizationService = `
apiVersion: fairway.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: reviews, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  externalAuthorization:
    protocol: GRPC
    backendRef: {name: sessions, port: 81}
    forwardBody: {maxSize: 1024}
`

// TestAuthorizationServices: nobody is said to be let in whom a service decides about.
func TestAuthorizationServices(t *testing.T) {
	m := asking(t, authorizationService)
	a := m.asksReviews(t)
	require.Equal(t, Depends, a.Verdict, "%+v", a.Steps)
	require.Equal(t, []string{"authorization service bookshop/sessions:81"}, a.DependsOn)
	s := a.stage(t, "externalAuthorization")
	require.Equal(t, []int{503, 413}, s.MayAnswer)
	require.Contains(t, s.Reason, "Service bookshop/sessions:81 is asked before AuthorizationPolicies decide")
	require.Contains(t, s.Reason, "if it is unavailable, the answer is 503")
	require.Equal(t, "bookshop/reviews", s.Policy)
	text, err := json.Marshal(a)
	require.NoError(t, err)
	require.Contains(t, string(text), `"dependsOn":["authorization service bookshop/sessions:81"]`)

	// It lets nobody past the policies.
	q := &Request{Method: "POST", Path: "/reviews"}
	a, err = m.Ask(Question{Account: in("shop"), Service: in("reviews"), Request: q})
	require.NoError(t, err)
	require.Equal(t, Denied, a.Verdict)
	require.Zero(t, a.Status, "the service may have answered before")
	a, err = m.Ask(Question{Account: in("shop"), Service: in("reviews")})
	require.NoError(t, err)
	require.Equal(t, Depends, a.Verdict)
	require.Equal(t, "externalAuthorization", a.Steps[0].Stage)

	for change, want := range map[string]Verdict{
		"port: 81}\n    failureMode: Open": Depends, "port: 82}": Answered, "port: 82}\n    failureMode: Open": Allowed,
	} {
		a = asking(t, strings.Replace(authorizationService, "port: 81}", change, 1)).asksReviews(t)
		require.Equal(t, want, a.Verdict, "%s: %+v", change, a.Steps)
		s = a.stage(t, "externalAuthorization")
		if strings.Contains(change, "Open") {
			require.Contains(t, s.Reason, "requests pass")
		} else {
			require.Equal(t, 503, a.Status)
		}
	}
	// Policies keep the waypoint from asking.
	m = asking(t, authorizationService)
	m.store.Authorization.Delete(in("waypoint-asks"))
	a = m.asksReviews(t)
	require.Equal(t, Answered, a.Verdict, "%+v", a.Steps)
}

const issuers = `
apiVersion: fairway.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: reviews, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  jwt:
    required: true
    providers:
    - name: staff
      issuer: https://staff.example
      audiences: [reviews]
      jwks: {remote: {backendRef: {name: sessions, port: 81}, uri: "https://staff.example/keys"}}
    - name: public
      issuer: https://public.example
      jwks: {remote: {backendRef: {name: sessions, port: 81}, uri: "https://public.example/keys"}}
      fromParams: [access_token]
`

// TestTokens: it is said by whose tokens a request is judged, and what happens without.
func TestTokens(t *testing.T) {
	m := asking(t, issuers)
	without := m.asksReviews(t)
	require.Equal(t, Denied, without.Verdict, "%+v", without.Steps)
	require.Equal(t, http.StatusUnauthorized, without.Status)
	s := without.stage(t, "tokens")
	require.Contains(t, s.Reason, "the request has no token; AuthenticationPolicy bookshop/reviews takes tokens of "+
		"issuer https://staff.example (in header authorization Bearer, for reviews, keys from Service bookshop/sessions:81) "+
		"or of issuer https://public.example (in parameter access_token, keys")

	with := m.asksReviews(t, "authorization", "Bearer s3cret")
	require.Equal(t, Depends, with.Verdict)
	require.Equal(t, []string{"the request's token"}, with.DependsOn)
	require.Contains(t, with.stage(t, "tokens").Reason, "answered 401")
	text, err := json.Marshal(with)
	require.NoError(t, err)
	require.NotContains(t, string(text), "s3cret")

	twice := m.asksReviews(t, "authorization", "Bearer s3cret", "authorization", "Bearer other")
	require.Equal(t, Denied, twice.Verdict)
	require.Equal(t, http.StatusForbidden, twice.Status)

	m = asking(t, strings.Replace(issuers, "required: true", "required: false", 1))
	require.Equal(t, Allowed, m.asksReviews(t).Verdict)
	require.Contains(t, m.asksReviews(t).stage(t, "tokens").Reason, "passes as nobody")
	a, err := m.Ask(Question{Account: in("shop"), Service: in("reviews")})
	require.NoError(t, err)
	require.Contains(t, a.stage(t, "tokens").Reason, "one without passes as nobody")

	// A service that is asked before may bring a token.
	both := asking(t, issuers+"---"+routeWith("ExternalAuth", externalAuth, "reviews")).asksReviews(t)
	require.Equal(t, []string{"ExternalAuth of the rule", "tokens"}, stages(both))
	require.Equal(t, Depends, both.Verdict, "%+v", both.Steps)
	// Whom a policy has asked is asked of requests whose tokens are good.
	both = asking(t, issuers+"  externalAuthorization: {protocol: GRPC, backendRef: {name: sessions, port: 81}}\n").
		asksReviews(t, "authorization", "Bearer s3cret")
	require.Equal(t, []string{"tokens", "externalAuthorization"}, stages(both))
	require.Equal(t, []string{"the request's token", "authorization service bookshop/sessions:81"}, both.DependsOn)
}

const (
	externalAuth = "externalAuth: {protocol: GRPC, backendRef: {name: sessions, port: 81}}"
	tenant       = "extensionRef: {group: fairway.dev, kind: HTTPExtension, name: tenant}"
)

// routeWith is a route of the reviews with a filter.
func routeWith(kind, filter, backend string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - name: read
    filters: [{type: ` + kind + `, ` + filter + `}]
    backendRefs: [{name: ` + backend + `, port: 80}]
`
}

const script = `
apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: tenant, namespace: bookshop}
spec: {lua: {source: "function envoy_on_request(handle) end"}}
---`

const processor = `
apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: tenant, namespace: bookshop}
spec: {extProc: {backendRef: {name: sessions, port: 81}, request: {}}}
---`

// module is an HTTPExtension with one that is shown so much, in a ConfigMap.
func module(t *testing.T, shown string) string {
	t.Helper()
	return `
apiVersion: v1
kind: ConfigMap
metadata: {name: tenant, namespace: bookshop}
binaryData: {module.wasm: ` + base64.StdEncoding.EncodeToString(wasmtest.Plugin().Bytes()) + `}
---
apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: tenant, namespace: bookshop}
spec: {wasm: {configMapRef: {name: tenant}, ` + shown + `}}
---`
}

// TestFiltersOfRules: a rule's own authorization service and extensions see its requests first.
func TestFiltersOfRules(t *testing.T) {
	for name, tc := range map[string]struct {
		objects string
		want    Verdict
		stage   string
		status  int
		reason  string
	}{
		"asks": {
			routeWith("ExternalAuth", externalAuth, "reviews"), Depends, "ExternalAuth of the rule", 0,
			"bookshop/sessions:81 is asked",
		},
		"can't ask": {
			routeWith("ExternalAuth", strings.Replace(externalAuth, "81", "82", 1), "reviews"), Answered, "", 503,
			"can't be asked",
		},
		"a script": {
			script + routeWith("ExtensionRef", tenant, "reviews"), Depends, "extension tenant", 0,
			"a script in Lua sees the request before tokens are verified and policies decide, and may change headers or " +
				"answer by itself; if it fails, executes more than a million instructions or keeps more than 32 MiB, the " +
				"answer is 500",
		},
		"a module": {
			module(t, "request: {}") + routeWith("ExtensionRef", tenant, "reviews"), Depends, "extension tenant", 0,
			"a module in WebAssembly sees the request before tokens are verified and policies decide, and may change headers " +
				"or answer by itself; if it traps, as where it wants more than 32 MiB of memory, the answer is 503",
		},
		"a module that sees answers": {
			module(t, "response: {}") + routeWith("ExtensionRef", tenant, "reviews"), Allowed, "extension tenant", 0,
			"a module in WebAssembly sees answers only; if it traps",
		},
		"a processor": {
			processor + routeWith("ExtensionRef", tenant, "reviews"), Depends, "extension tenant", 0,
			"503, or 504 if it is too slow",
		},
		"no such extension": {
			routeWith("ExtensionRef", tenant, "reviews"), Answered, "", 500,
			"an extension of the rule can't be used: see the status of the route (HTTPExtension bookshop/tenant)",
		},
		"a bad script": {
			strings.Replace(script, "(handle) end", "(handle", 1) + routeWith("ExtensionRef", tenant, "reviews"),
			Answered, "", 500,
			"an extension of the rule can't be used",
		},
		"a processor that can't be asked": {
			strings.Replace(processor, "81", "82", 1) + routeWith("ExtensionRef", tenant, "reviews"), Answered, "", 500,
			"an extension of the rule can't be used",
		},
		"no backend": {
			routeWith("ResponseHeaderModifier", "responseHeaderModifier: {remove: [a]}", "gone"), Answered, "", 500,
			"the rule has no valid backend",
		},
		"redirected": {
			strings.Replace(routeWith("RequestRedirect", "requestRedirect: {hostname: elsewhere, statusCode: 301}", ""),
				"backendRefs: [{name: , port: 80}]", "", 1), Answered, "", 301, "it redirects",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := asking(t, tc.objects).asksReviews(t)
			require.Equal(t, tc.want, a.Verdict, "%+v", a.Steps)
			require.Equal(t, tc.status, a.Status)
			s := a.stage(t, tc.stage)
			require.Contains(t, s.Reason, tc.reason)
			require.Contains(t, s.At, "rule read of HTTPRoute bookshop/reviews")
		})
	}
	// Nothing is run that the administrator doesn't allow.
	m := asking(t, script+routeWith("ExtensionRef", tenant, "reviews"))
	m.add(t, "apiVersion: fairway.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n"+
		"spec: {trustDomain: cluster.local}\n")
	require.Equal(t, http.StatusInternalServerError, m.asksReviews(t).Status)
	// A rule that changes headers says what policies see.
	const sets = "requestHeaderModifier: {set: [{name: a, value: b}]}"
	a := asking(t, routeWith("RequestHeaderModifier", sets, "reviews")).asksReviews(t)
	require.Equal(t, Allowed, a.Verdict, "%+v", a.Steps)
	// Where no pod is there, no application is.
	m = asking(t, routeWith("ResponseHeaderModifier", "responseHeaderModifier: {remove: [a]}", "reviews"))
	m.add(t, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, namespace: bookshop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080}]
`)
	a = m.asksReviews(t)
	require.Equal(t, Answered, a.Verdict, "%+v", a.Steps)
	require.Equal(t, http.StatusServiceUnavailable, a.Status)
}

// TestLimits: what may refuse anybody is told, and what refuses everybody.
func TestLimits(t *testing.T) {
	policy := func(spec string) *Mesh {
		return asking(t, `
apiVersion: fairway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: slow, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  `+spec)
	}
	const global = "global: {backendRef: {name: sessions, port: 81}, domain: d, " +
		"descriptors: [{entries: [{key: a, value: b}]}]"
	for name, tc := range map[string]struct {
		spec   string
		want   Verdict
		stage  string
		may    []int
		status int
		reason string
	}{
		"local": {
			"rateLimit: {local: {requests: 5, unit: Second}}", Allowed, "rateLimit.local",
			[]int{429},
			0,
			"5 requests pass in 1s",
		},
		"global": {
			"rateLimit: {" + global + "}}", Allowed, "rateLimit.global", []int{429}, 0, "requests pass (failureMode Open)",
		},
		"closed": {
			"rateLimit: {" + global + ", failureMode: Closed}}", Allowed, "rateLimit.global",
			[]int{429, 503},
			0,
			"answer is 503",
		},
		"nobody to ask": {
			"rateLimit: {" + strings.Replace(global, "81", "82", 1) + ", failureMode: Closed}}", Answered,
			"rateLimit.global", nil,
			503, "can't be asked",
		},
		"long bodies": {
			"buffering: {maxRequestKiB: 2}", Allowed, "buffering.maxRequestKiB", []int{413}, 0, "more than 2048 bytes",
		},
		"long answers": {
			"buffering: {maxResponseKiB: 2}", Allowed, "buffering.maxResponseKiB",
			[]int{500, 502, 503, 504},
			0,
			"one of more than 2048 bytes becomes a 500",
		},
		"a share": {
			"faults: {abort: {status: 418, percent: 20}}", Depends, "faults", []int{418}, 0, "20 % of the requests",
		},
		"all": {"faults: {abort: {status: 418}}", Answered, "faults", nil, 418, "a fault is injected into all"},
	} {
		t.Run(name, func(t *testing.T) {
			a := policy(tc.spec).asksReviews(t)
			require.Equal(t, tc.want, a.Verdict, "%+v", a.Steps)
			require.Equal(t, tc.status, a.Status)
			s := a.stage(t, tc.stage)
			require.Equal(t, tc.may, s.MayAnswer)
			require.Contains(t, s.Reason, tc.reason)
			require.Equal(t, "bookshop/slow", s.Policy)
		})
	}
}

// TestAllStagesInOrder: as Envoy's filters run.
func TestAllStagesInOrder(t *testing.T) {
	m := asking(t, script+strings.Replace(routeWith("ExternalAuth", externalAuth, "reviews"), "filters: [",
		"filters: [{type: ExtensionRef, "+tenant+"}, ", 1)+"---"+issuers+
		"  externalAuthorization: {protocol: GRPC, backendRef: {name: sessions, port: 81}}\n---"+`
apiVersion: fairway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: slow, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  rateLimit: {local: {requests: 5, unit: Second}}
  buffering: {maxRequestKiB: 2, maxResponseKiB: 2}
  faults: {abort: {status: 418, percent: 1}}
`)
	require.Equal(t, []string{
		"ExternalAuth of the rule", "extension tenant", "tokens", "externalAuthorization", "rateLimit.local",
		"buffering.maxRequestKiB", "faults", "buffering.maxResponseKiB",
	}, stages(m.asksReviews(t)))
}

// TestAnswersThatAreHeld: what is refused is no answer of the application, so nothing becomes of it.
func TestAnswersThatAreHeld(t *testing.T) {
	m := asking(t, `
apiVersion: fairway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: slow, namespace: bookshop}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  buffering: {maxResponseKiB: 2}
`)
	a, err := m.Ask(Question{
		Account: in("shop"), Service: in("reviews"), Request: &Request{Method: "POST", Path: "/reviews"},
	})
	require.NoError(t, err)
	require.Equal(t, Denied, a.Verdict)
	require.Equal(t, http.StatusForbidden, a.Status, "it is sure")
	require.Empty(t, stages(a))
}
