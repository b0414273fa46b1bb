// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	jwt     = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzYTpwbGFudGVkIn0.c2lnbmF0dXJl"
	planted = "pl4nt3d"
)

func TestText(t *testing.T) {
	for _, c := range [][2]string{
		{"authorization: Bearer abc" + planted + "/+=", planted},
		{"got " + jwt + " from x", "eyJ"},
		{`{"level":"info","token":"` + planted + `"}`, planted},
		{`{"body":"{\"password\":\"` + planted + `\"}"}`, planted},
		{"DB_PASSWORD=" + planted, planted},
		{"x-api-key: " + planted + ", x", planted},
		{"GET /a?code=" + planted + "&b=c HTTP/1.1", planted},
		{"https://user:" + planted + "@host/", planted},
		{"Cookie: theme=dark; sid=" + planted + "; x=1", planted},
		{"authorization: ApiKey a " + planted, planted},
		{"set-cookie: a=b; " + planted + "\nnext", planted},
		{"Cookie: session=" + planted, planted},
		{"-----BEGIN EC PRIVATE KEY-----\n" + planted + "\n-----END EC PRIVATE KEY-----\nmore", planted},
		{`-----BEGIN PRIVATE KEY-----\n` + planted + `\n-----END PRIVATE KEY-----`, planted},
		{"-----BEGIN RSA PRIVATE KEY-----\n" + planted, planted},
		{"key AKIAABCDEFGHIJKLMNOP", "AKIAABCD"},
		{`Cookie: theme="dark"; sid=` + planted, planted},
		{`{"msg":"Cookie: theme=\"dark\"; sid=` + planted + `","n":1}`, planted},
		{`Authorization: Digest username="b", response="` + planted + `"`, planted},
		{`got Digest username="b", response="` + planted + `"`, planted},
		{`"password":"a'b` + planted + `"`, planted},
		{"password=a,b" + planted, planted},
		{"password=a;b&" + planted, planted},
		{`password=a"b` + planted, planted},
		{"pwd=" + planted, planted},
		{"DB_PASS=" + planted, planted},
		{"dbPass=" + planted, planted},
		{"the pin: 4711" + planted, planted},
		{"pin=471147", "471147"},
		{"client_key: " + planted, planted},
		{"X-Auth: " + planted, planted},
		{"run --api-key " + planted, planted},
		{"run --password '" + planted + " x'", planted},
		{"login with password " + planted, planted},
		{"the password is " + planted + ".", planted},
		{"API key: " + planted, planted},
		{"mysqladmin -uroot -p" + planted + " status", planted},
		{"curl -u me:" + planted + " https://h/", planted},
		{"AccountName=a;AccountKey=" + planted + "==;EndpointSuffix=x", planted},
		{"me:" + planted + "@tcp(db:3306)/x", planted},
		{"https://me:a@b" + planted + "@host/", planted},
		{"GET /x?token%3D" + planted, planted},
		{"GET /x?" + planted + planted + planted, planted},
		{"'x-api-key', '" + planted + "'", planted},
		{"2026-01-01T00:00:00.1Z 'cookie', 'a=b'c" + planted + "'", planted},
		{"password:\n  " + planted, planted},
		{"token: |\n  " + planted + "\nmore", planted},
		{"password=\x1b[1;32m" + planted + "\x1b[0m", planted},
		{"password=\x1b]0;" + planted, planted},
		{"-----BEGIN PGP PRIVATE KEY BLOCK-----\n" + planted + "\n-----END PGP PRIVATE KEY BLOCK-----\n", planted},
		{"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n" + planted, planted},
		{planted + "\n-----END PRIVATE KEY-----\nthe log goes on", planted},
		{`script line:1(column:5) near '` + planted + "'s\n" + planted + `':   syntax error`, planted},
		{`[string "key = '` + planted + `'"]:1: unexpected symbol near '` + planted + `'`, planted},
		{`Authorization:[Bearer ` + planted + `] Cookie:[a=b; c=` + planted + `]`, planted},
	} {
		in, want := c[0], c[1]
		got := String(in)
		require.NotContains(t, got, want, in)
		require.Contains(t, got, Mark, in)
		require.Equal(t, got, String(got), "what is redacted stays as it is")
	}
	for _, same := range []string{
		`{"level":"info","ts":"2026-01-01","msg":"the proxy is connected","scope":"node/a"}`,
		"envoy_cluster_upstream_cx_total{envoy_cluster_name=\"10.96.0.1:80\"} 4",
		"spiffe://cluster.local/ns/bookshop/sa/shop",
		"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		"objects/authorizationpolicy.fairway.dev.json: you have no right to",
		`{"tokens":12,"cookie_count":"3","a":"b"}`,
		"secrets_total=14 secretName=fairway-ca",
		"password authentication failed for user",
		"tried registry.example/team/image:v1@sha256:0123456789abcdef",
		"the token is expired",
		"http://10.96.0.1:8080/cart?x",
		"':path', '/cart'",
		"'content-length', '512'",
		"über 10 Zeichen\tand\n a tab",
	} {
		require.Equal(t, same, String(same))
	}
}

// certificate in PEM.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestJSON(t *testing.T) {
	in := `{"kind": "PodList", "items": [{
	  "metadata": {"name": "a", "managedFields": [{"manager": "x"}], "annotations": {
	    "kubectl.kubernetes.io/last-applied-configuration": "{\"pl4nt3d\": 1}", "example.com/key": "pl4nt3d",
	    "fairway.dev/note": "kept"}},
	  "spec": {"containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "pl4nt3d"}]}]},
	  "status": {"message": "Bearer pl4nt3dpl4nt3d", "n": 12345678901234567890}},
	 {"stats": [{"name": "cx_total", "value": "77001"}, {"name": "cx_active", "type": "GAUGE", "value": "77002"}]},
	 {"kind": "Secret", "data": {"k": "pl4nt3d"}},
	 {"spec": {"rules": [{"matches": [{"path": {"type": "Exact", "value": "/kept"},
	    "headers": [{"type": "Exact", "name": "x-key", "value": "pl4nt3d"}]}]}],
	    "lua": {"source": "pl4nt3d"}, "wasm": {"config": "pl4nt3d"}, "jwks": {"inline": "pl4nt3d"},
	    "cel": {"expression": "x == 'pl4nt3d'"}}},
	 {"match": {"headers": [{"name": ":path", "string_match": {"exact": "/kept-too"}},
	    {"name": "x-key", "string_match": {"exact": "pl4nt3d"}}]},
	  "request_headers_to_add": [{"header": {"key": "x-key", "value": "pl4nt3d"}}],
	  "metadata": {"filter": "f", "path": [{"key": "sub"}], "value": {"string_match": {"exact": "pl4nt3d"}}},
	  "tls_certificate": {"certificate_chain": {"inline_string": "CERTIFICATE"},
	   "private_key": {"inline_bytes": "pl4nt3d"}},
	  "trusted_ca": {"inline_string": "-----BEGIN X-----\npl4nt3d\n-----END X-----\nCERTIFICATEpl4nt3d",
	   "filename": "/kept/ca"},
	  "ca_certificates": {"inline_bytes": "pl4nt3d", "x": {"token": "pl4nt3d"}},
	  "uri": "https://u:pl4nt3d@h.example/pl4nt3d?token=pl4nt3d", "jwks_uri": "https://u:pl4nt3d@h/?a=pl4nt3d"},
	 {"jwtClaims": [{"name": "sub", "values": ["pl4nt3d"]}], "cookies": "pl4nt3d", "fromCookies": ["session-of-name"],
	  "config": {"name": "shop/module", "vm_config": {"runtime": "kept.v8"},
	   "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "pl4nt3d"}},
	  "typed": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": ["pl4nt3d"]}},
	  "tls": {"options": {"example.com/key": "pl4nt3d", "depth": "3"}, "mode": "Terminate"},
	  "password": "pl4nt3d", "dbPass": "pl4nt3d", "clientSecret": "pl4nt3d", "api_key": ["pl4nt3d"], "pin": 471147,
	  "credentials": {"value": "pl4nt3d"}, "token": {"data": ["pl4nt3d"]}, "secretName": "name-of-secret", "tokens": 3,
	  "name": {"a": "b"}, "labels": {"password=pl4nt3d": "x"},
	  "tolerations": [{"key": "k", "operator": "Equal", "value": "tainted"}],
	  "matcher": {"single_predicate": {"input": {"name": "h", "typed_config": {"header_name": "x-key"}},
	   "value_match": {"exact": "pl4nt3d"}}},
	  "conditions": [{"message": "script line:1(column:2) near 'pl4nt3d':   syntax error"}, {"message": "\u001b[2Jx\u009bn"}]}]}`
	in = strings.ReplaceAll(in, "CERTIFICATE", strings.ReplaceAll(certificate(t), "\n", `\n`))
	out, err := JSON(t.Context(), []byte(in))
	require.NoError(t, err)
	require.NotContains(t, string(out), planted)
	for _, kept := range []string{
		`"i:1"`, `"kept"`, `"/kept"`, `"/kept-too"`, "-----END CERTIFICATE-----", "12345678901234567890", "77001",
		"77002", `"x-key"`, `"name": "A"`, "/kept/ca", "https://h.example/", "session-of-name", "shop/module", "kept.v8",
		`"depth": "3"`, "Terminate", "name-of-secret", `"tokens": 3`, "tainted", "syntax error", `"\\x1b[2Jx\\u009bn"`,
	} {
		require.Contains(t, string(out), kept)
	}
	require.NotContains(t, string(out), "managedFields")
	require.NotContains(t, string(out), "471147")
	again, err := JSON(t.Context(), out)
	require.NoError(t, err)
	require.Equal(t, string(out), string(again))
	_, err = JSON(t.Context(), []byte("no"))
	require.Error(t, err)
	require.NotPanics(t, func() { _, _ = JSON(t.Context(), []byte(strings.Repeat("[", 1000))) })
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b]52;c;AAAA\a": `\x1b]52;c;AAAA\a`, "a\x1b[2Jb\r": `a\x1b[2Jb\r`, "\x1b[31mred\x1b[0m": "red", "\xff": `\xff`,
		"\u009b2J": `\u009b2J`, "\u202eabc": `\u202eabc`, "a\u00a0b": `a\u00a0b`, "a\n\tb": "a\n\tb", "\ufffd": "\ufffd",
	} {
		require.Equal(t, want, String(in))
	}
}
