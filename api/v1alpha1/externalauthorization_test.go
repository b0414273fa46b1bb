// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import "testing"

// TestExternalAuthorizationValidation: what can't be carried out is refused, in words that say what to do.
func TestExternalAuthorizationValidation(t *testing.T) {
	c := connect(t)
	const ask = "externalAuthorization: {backendRef: {name: sessions, port: 81}, protocol: "
	for _, tc := range []struct {
		spec    string // beside targetRefs
		refused string // part of the message; accepted where empty
	}{
		{"", "set jwt, externalAuthorization or both"},
		{ask + "GRPC}", ""},
		{ask + "HTTP}", ""},
		{ask + "TCP}", "Unsupported value"},
		{"externalAuthorization: {protocol: HTTP}", "Required value"},
		{ask + "GRPC, grpc: {allowedHeaders: [X-Token]}, failureMode: Open, timeout: 100ms}", ""},
		{ask + "GRPC, http: {path: /check}}", "http is for protocol HTTP"},
		{ask + "HTTP, grpc: {}}", "grpc is for protocol GRPC"},
		{ask + "HTTP, http: {path: /check, allowedHeaders: [Cookie], allowedResponseHeaders: [X-User]}}", ""},
		{ask + "HTTP, http: {path: check}}", "should match"},
		{ask + "HTTP, http: {path: '/a?b'}}", "should match"},
		{ask + "HTTP, http: {allowedHeaders: []}}", "at least 1"},
		{ask + "HTTP, forwardBody: {maxSize: 65535}}", ""},
		{ask + "HTTP, forwardBody: {maxSize: 65536}}", "less than or equal to 65535"},
		{ask + "HTTP, timeout: 2m}", "should match"},
		{ask + "HTTP, timeout: 90s}", "from 10ms to 1m"},
		{ask + "HTTP, failureMode: Maybe}", "Unsupported value"},
	} {
		tries(t, c, `apiVersion: fairway.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: x, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  `+tc.spec+"\n", tc.refused)
	}
}
