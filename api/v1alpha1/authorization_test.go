// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// TestAuthorizationPolicyValidation: what no layer could enforce can't be written.
func TestAuthorizationPolicyValidation(t *testing.T) {
	c := connect(t)
	const (
		one      = "enforcementLevel: Network, action: ALLOW"
		requests = "enforcementLevel: Application, action: ALLOW"
		pods     = "targetRefs: [{kind: Pod, selector: {}}], enforcementLevel: Network, action: ALLOW"
		service  = "targetRefs: [{kind: Service, name: web}], enforcementLevel: Application, action: ALLOW"
	)
	for name, tc := range map[string]struct{ spec, refused string }{
		"default deny": {
			pods,
			"",
		},
		"a namespace": {
			"targetRefs: [{kind: Namespace}], " + one,
			"",
		},
		"pods by labels": {
			"targetRefs: [{kind: Pod, selector: {matchLabels: {a: b}}}], " + one,
			"",
		},
		"nobody": {
			pods + ", rules: [{sources: []}]",
			"",
		},
		"everybody, at a port": {
			pods + ", rules: [{networkAttributes: {ports: [80]}}]",
			"",
		},
		"an account": {
			pods + ", rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: a}}]}]",
			"",
		},
		"all accounts": {
			pods + ", rules: [{sources: [{type: ServiceAccount, serviceAccount: {namespace: b, name: '*'}}]}]",
			"",
		},
		"an identity": {
			pods + ", rules: [{sources: [{type: SPIFFE, spiffe: 'spiffe://td/ns/a/sa/b'}]}]",
			"",
		},
		"requests": {
			service + ", rules: [{applicationAttributes: {methods: [GET], paths: [{type: Prefix, value: /a}], " +
				"hosts: ['*.example.org'], headers: [{name: x-a}], jwtClaims: [{name: sub, values: [a]}]}}]",
			"",
		},
		"gRPC": {
			service + ", rules: [{applicationAttributes: {grpcMethods: [{service: a.B, method: C}]}}]",
			"",
		},
		"CEL": {
			service + ", rules: [{applicationAttributes: {type: CEL, cel: {expression: 'true'}}}]",
			"",
		},
		"a route": {
			"targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], " + requests,
			"",
		},
		"deny": {
			"targetRefs: [{kind: Service, name: web}], enforcementLevel: Network, action: DENY, rules: [{}]",
			"",
		},
		"no level": {
			"targetRefs: [{kind: Pod, selector: {}}], action: ALLOW",
			"Required value",
		},
		"no action": {
			"targetRefs: [{kind: Pod, selector: {}}], enforcementLevel: Network",
			"Required value",
		},
		"no target": {
			"targetRefs: [], " + one,
			"should have at least 1 items",
		},
		"another action": {
			"targetRefs: [{kind: Pod, selector: {}}], enforcementLevel: Network, action: LOG",
			"Unsupported value",
		},
		"requests on connections": {
			pods + ", rules: [{applicationAttributes: {methods: [GET]}}]",
			"need enforcementLevel Application",
		},
		"requests to pods": {
			"targetRefs: [{kind: Pod, selector: {}}], " + requests,
			"targets Service, HTTPRoute, GRPCRoute or Gateway",
		},
		"connections to a route": {
			"targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], " + one,
			"targets Pod (by selector), Namespace or Service",
		},
		"pods and something else": {
			"targetRefs: [{kind: Pod, selector: {}}, {kind: Service, name: a}], " + one,
			"must be the only one",
		},
		"pods without selector": {
			"targetRefs: [{kind: Pod}], " + one,
			"needs a selector",
		},
		"pods by name": {
			"targetRefs: [{kind: Pod, name: a, selector: {}}], " + one,
			"name the target",
		},
		"a Service by labels": {
			"targetRefs: [{kind: Service, name: a, selector: {}}], " + one,
			"no other kind has one",
		},
		"a Service without name": {
			"targetRefs: [{kind: Service}], " + one,
			"name the target",
		},
		"another namespace": {
			"targetRefs: [{kind: Namespace, name: b}], " + one,
			"no name",
		},
		"wrong group": {
			"targetRefs: [{kind: HTTPRoute, name: r}], " + requests,
			"group must be",
		},
		"deny without rules": {
			"targetRefs: [{kind: Pod, selector: {}}], enforcementLevel: Network, action: DENY",
			"denies nothing",
		},
		"a source that is two": {
			pods + ", rules: [{sources: [{type: SPIFFE, spiffe: 'spiffe://td/a', serviceAccount: {name: a}}]}]",
			"set serviceAccount with type",
		},
		"a source that is none": {
			pods + ", rules: [{sources: [{type: SPIFFE}]}]",
			"set serviceAccount with type",
		},
		"a pattern of identities": {
			pods + ", rules: [{sources: [{type: SPIFFE, spiffe: 'spiffe://td/*'}]}]",
			"should match",
		},
		"a trust domain": {
			pods + ", rules: [{sources: [{type: SPIFFE, spiffe: 'spiffe://td'}]}]",
			"should match",
		},
		"a pattern of accounts": {
			pods + ", rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: 'a*'}}]}]",
			"should match",
		},
		"CEL and fields": {
			service + ", rules: [{applicationAttributes: {type: CEL, methods: [GET], cel: {expression: 'true'}}}]",
			"no fields but cel",
		},
		"CEL without saying so": {
			service + ", rules: [{applicationAttributes: {cel: {expression: 'true'}}}]",
			"set cel with type CEL",
		},
		"an empty list of methods": {
			service + ", rules: [{applicationAttributes: {methods: []}}]",
			"at least 1 items",
		},
		"a gRPC service that is not": {
			service + ", rules: [{applicationAttributes: {grpcMethods: [{service: 'a/b'}]}}]",
			"should match",
		},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := "apiVersion: fairway.dev/v1alpha1\nkind: AuthorizationPolicy\n" +
				"metadata: {name: p, namespace: default}\nspec: {" + tc.spec + "}"
			tries(t, c, manifest, tc.refused)
		})
	}
}

// TestNobodyStaysNobody: an empty list of sources matches nobody, and no program that writes the policy back may make
// everybody of it.
func TestNobodyStaysNobody(t *testing.T) {
	for spec, nobody := range map[string]bool{`{"sources":[]}`: true, `{}`: false} {
		var rule v1alpha1.AuthorizationRule
		require.NoError(t, json.Unmarshal([]byte(spec), &rule))
		require.Equal(t, nobody, rule.Sources != nil)
		back, err := json.Marshal(rule)
		require.NoError(t, err)
		require.JSONEq(t, spec, string(back))
	}
}
