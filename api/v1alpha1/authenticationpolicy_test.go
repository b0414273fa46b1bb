// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strings"
	"testing"
)

// TestAuthenticationPolicyValidation: what can't be carried out is refused, in words that say what to do.
func TestAuthenticationPolicyValidation(t *testing.T) {
	c := connect(t)
	const service = "{group: '', kind: Service, name: web}"
	jwt := func(provider string) string {
		return "targetRefs: [" + service + "], jwt: {providers: [{name: a, issuer: i" + provider + "}]}"
	}
	const inline, backend = ", jwks: {inline: '{}'}", "backendRef: {name: l, port: 80}"
	for _, tc := range []struct {
		spec    string
		refused string // part of the message; accepted where empty
	}{
		{jwt(inline), ""},
		{"targetRefs: [" + service + "]", "set jwt"},
		{"targetRefs: [], jwt: {providers: [{name: a, issuer: i" + inline + "}]}", "at least 1"},
		{
			"targetRefs: [{group: '', kind: Pod, name: web}], jwt: {providers: [{name: a, issuer: i" + inline + "}]}",
			"target Services",
		},
		{"targetRefs: [{group: '', kind: Service, name: web, sectionName: http}], jwt: {providers: [{name: a, issuer: i" +
			inline + "}], required: false}", ""},
		{"targetRefs: [" + service + "], jwt: {providers: []}", "at least 1"},
		{"targetRefs: [" + service + "], jwt: {providers: [{name: a, issuer: i" + inline + "}, {name: a, issuer: j" + inline +
			"}]}", "Duplicate"},
		{jwt(""), "jwks"},
		{jwt(", jwks: {}"), "exactly one of inline and remote"},
		{jwt(", jwks: {inline: '{}', remote: {uri: 'http://l/k', " + backend + "}}"), "exactly one of inline and remote"},
		{jwt(", jwks: {inline: '" + strings.Repeat("x", 16385) + "'}"), "may not be more than 16384"},
		{jwt(", jwks: {remote: {uri: 'https://l/k', " + backend + ", cacheDuration: 1h30m, timeout: 500ms}}"), ""},
		{jwt(", jwks: {remote: {uri: 'https://l/k'}}"), "backendRef"},
		{jwt(", jwks: {remote: {uri: 'ftp://l/k', " + backend + "}}"), "should match"},
		{jwt(", jwks: {remote: {uri: 'https:///k', " + backend + "}}"), "should match"},
		{jwt(", jwks: {remote: {uri: 'https://l/k', " + backend + ", cacheDuration: 48h}}"), "from 1s to 24h"},
		{jwt(", jwks: {remote: {uri: 'https://l/k', " + backend + ", timeout: 2m}}"), "should match"},
		{jwt(", jwks: {remote: {uri: 'https://l/k', " + backend + ", timeout: 10ms}}"), "from 100ms to 1m"},
		{jwt(inline + ", audiences: []"), "at least 1"},
		{jwt(inline + ", audiences: [a, a]"), "Duplicate"},
		{jwt(inline + ", fromHeaders: [{name: X-Token}, {name: Authorization, valuePrefix: 'Token '}]"), ""},
		{jwt(inline + ", fromHeaders: [{name: 'x y'}]"), "should match"},
		{jwt(inline + ", fromHeaders: [{name: Host}]"), "another meaning"},
		{jwt(inline + ", fromHeaders: [{name: X-Forwarded-Client-Cert}]"), "another meaning"},
		{jwt(inline + ", fromHeaders: [{name: X-Token, valuePrefix: 'a\"b'}]"), "should match"},
		{jwt(inline + ", fromParams: [token]"), ""},
		{jwt(inline + ", fromParams: ['a b']"), "should match"},
		{jwt(inline + ", fromCookies: [session]"), ""},
		{jwt(inline + ", fromCookies: [session], forward: false"), "set forward to true"},
		{jwt(inline + ", fromCookies: ['a=b']"), "should match"},
		{jwt(inline + ", claimsToHeaders: [{claim: sub, header: X-User}]"), ""},
		{jwt(inline + ", claimsToHeaders: [{claim: sub, header: X-User}, {claim: email, header: X-User}]"), "Duplicate"},
		{jwt(inline + ", claimsToHeaders: [{claim: sub, header: x-fairway-authentication}]"), "another meaning"},
		{jwt(inline + ", claimsToHeaders: [{claim: sub, header: ':path'}]"), "should match"},
	} {
		t.Run(tc.spec[:min(len(tc.spec), 160)], func(t *testing.T) {
			tries(t, c, "apiVersion: fairway.dev/v1alpha1\nkind: AuthenticationPolicy\n"+
				"metadata: {name: p, namespace: default}\nspec: {"+tc.spec+"}", tc.refused)
		})
	}
}
