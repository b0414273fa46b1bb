// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strings"
	"testing"
)

// TestHTTPExtensionValidation: what can't be carried out is refused, in words that say what to do.
func TestHTTPExtensionValidation(t *testing.T) {
	c := connect(t)
	const process = "extProc: {backendRef: {name: process, port: 81}"
	const module = "wasm: {configMapRef: {name: module}"
	for _, tc := range []struct {
		spec    string
		refused string // part of the message; accepted where empty
	}{
		{"{}", "set exactly one of lua, extProc and wasm"},
		{"{lua: {source: x}, " + process + ", request: {}}}", "set exactly one of lua, extProc and wasm"},
		{"{lua: {source: x}, " + module + ", request: {}}}", "set exactly one of lua, extProc and wasm"},
		{"{lua: {source: 'function envoy_on_request() end'}}", ""},
		{"{lua: {}}", "Required value"},
		{"{lua: {source: ''}}", "at least 1"},
		{"{lua: {source: '" + strings.Repeat("x", 32<<10) + "'}}", ""},
		{"{lua: {source: '" + strings.Repeat("x", 32<<10+1) + "'}}", "may not be more than 32768"},
		{"{" + process + "}}", "set request, response or both"},
		{"{extProc: {request: {}}}", "Required value"},
		{"{" + process + ", request: {}, response: {body: Streamed, trailers: true}, timeout: 50ms, failureMode: Open}}", ""},
		{"{" + process + ", request: {body: BufferedPartial}}}", "Unsupported value"},
		{"{" + process + ", request: {}, timeout: 90s}}", "from 10ms to 1m"},
		{"{" + process + ", request: {}, allowedHeaders: [X-User]}}", ""},
		{"{" + process + ", request: {}, allowedHeaders: [':path']}}", "should match"},
		{"{" + process + ", request: {}, allowedHeaders: []}}", "at least 1"},
		{"{" + module + "}}", "set request, response or both"},
		{"{wasm: {request: {}}}", "Required value"},
		{"{wasm: {configMapRef: {}, request: {}}}", "Required value"},
		{"{" + module + ", request: {}, response: {body: Streamed}, rootID: a, config: '{}'}}", ""},
		{"{" + module + ", request: {body: Buffered}}}", "Unsupported value"},
		{"{" + module + ", request: {}, sha256: " + strings.Repeat("0a", 32) + "}}", ""},
		{"{" + module + ", request: {}, sha256: " + strings.Repeat("0A", 32) + "}}", "should match"},
		{"{" + module + ", request: {}, config: '" + strings.Repeat("x", 16<<10+1) + "'}}", "may not be more than 16384"},
	} {
		tries(t, c, `apiVersion: fairway.dev/v1alpha1
kind: HTTPExtension
metadata: {name: x, namespace: default}
spec: `+tc.spec+"\n", tc.refused)
	}
	for _, tc := range []struct{ allow, refused string }{
		{"[{types: [Lua]}]", ""},
		{"[{types: [Lua, ExternalProcessing], namespaceSelector: {matchLabels: {a: b}}}]", ""},
		{"[{}]", "Required value"},
		{"[{types: []}]", "at least 1"},
		{"[{types: [Wasm, Lua, ExternalProcessing]}]", ""},
		{"[{types: [Perl]}]", "Unsupported value"},
	} {
		tries(t, c, `apiVersion: fairway.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {extensions: {allow: `+tc.allow+"}}\n", tc.refused)
	}
}
