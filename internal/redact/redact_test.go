// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
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
	} {
		in, want := c[0], c[1]
		got := String(in)
		require.NotContains(t, got, want, in)
		require.Contains(t, got, Mark, in)
	}
	for _, same := range []string{
		`{"level":"info","ts":"2026-01-01","msg":"the proxy is connected","scope":"node/a"}`,
		"envoy_cluster_upstream_cx_total{envoy_cluster_name=\"10.96.0.1:80\"} 4",
		"spiffe://cluster.local/ns/bookshop/sa/shop",
		"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
	} {
		require.Equal(t, same, String(same))
	}
}

func TestJSON(t *testing.T) {
	in := `{"kind": "PodList", "items": [{
	  "metadata": {"name": "a", "managedFields": [{"manager": "x"}], "annotations": {
	    "kubectl.kubernetes.io/last-applied-configuration": "{\"pl4nt3d\": 1}", "example.com/key": "pl4nt3d",
	    "fairway.dev/note": "kept"}},
	  "spec": {"containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "pl4nt3d"}]}]},
	  "status": {"message": "Bearer pl4nt3dpl4nt3d", "n": 12345678901234567890}},
	 {"name": "cx_total", "type": "COUNTER", "value": "77001"},
	 {"kind": "Secret", "data": {"k": "pl4nt3d"}},
	 {"spec": {"rules": [{"matches": [{"path": {"type": "Exact", "value": "/kept"},
	    "headers": [{"type": "Exact", "name": "x-key", "value": "pl4nt3d"}]}]}],
	    "lua": {"source": "pl4nt3d"}, "wasm": {"config": "pl4nt3d"}, "jwks": {"inline": "pl4nt3d"},
	    "cel": {"expression": "x == 'pl4nt3d'"}}},
	 {"match": {"headers": [{"name": ":path", "string_match": {"exact": "/kept-too"}},
	    {"name": "x-key", "string_match": {"exact": "pl4nt3d"}}]},
	  "request_headers_to_add": [{"header": {"key": "x-key", "value": "pl4nt3d"}}],
	  "metadata": {"filter": "f", "path": [{"key": "sub"}], "value": {"string_match": {"exact": "pl4nt3d"}}},
	  "tls_certificate": {"certificate_chain": {"inline_bytes": "a2VwdA=="}, "private_key": {"inline_bytes": "pl4nt3d"}},
	  "uri": "https://u:pl4nt3d@h/p?token=pl4nt3d"}]}`
	out, err := JSON([]byte(in))
	require.NoError(t, err)
	require.NotContains(t, string(out), planted)
	for _, kept := range []string{
		`"i:1"`, `"kept"`, `"/kept"`, `"/kept-too"`, "a2VwdA==", "12345678901234567890", "77001", `"x-key"`, `"name": "A"`,
	} {
		require.Contains(t, string(out), kept)
	}
	require.NotContains(t, string(out), "managedFields")
	_, err = JSON([]byte("no"))
	require.Error(t, err)
	require.NotPanics(t, func() { _, _ = JSON([]byte(strings.Repeat("[", 1000))) })
}
