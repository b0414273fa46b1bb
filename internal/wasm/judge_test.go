// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/test/wasmtest"
)

func header() []byte { return bytes.Clone(preamble) }

// TestJudge: what proxies would refuse, or can't bound, is refused in words for its author.
func TestJudge(t *testing.T) {
	plugin := wasmtest.Plugin
	change := func(f func(m *wasmtest.Module)) []byte {
		m := plugin()
		f(m)
		return m.Bytes()
	}
	imports := func(name, signature string) []byte {
		return change(func(m *wasmtest.Module) {
			m.Imports = append(slices.Clone(m.Imports), wasmtest.Function{Name: name, Signature: signature})
		})
	}
	exports := func(name, signature string, body ...wasmtest.Op) []byte {
		return change(func(m *wasmtest.Module) {
			m.Functions = append(m.Functions, wasmtest.Function{Name: name, Signature: signature, Body: body})
		})
	}
	without := func(name string) []byte {
		return change(func(m *wasmtest.Module) {
			m.Functions = slices.DeleteFunc(m.Functions, func(f wasmtest.Function) bool { return f.Name == name })
		})
	}
	for name, tc := range map[string]struct {
		module  []byte
		refused string // part of the message; taken where empty
	}{
		"a plugin":         {plugin().Bytes(), ""},
		"nothing":          {nil, "doesn't begin like one"},
		"a text":           {[]byte("(module)"), "doesn't begin like one"},
		"too long":         {append(header(), make([]byte, MostBytes)...), "1048576 bytes at most"},
		"cut off":          {plugin().Bytes()[:200], "ends too early"},
		"code of no sense": {exports("x", ":", wasmtest.Drop), "it is no valid WebAssembly"},
		"no memory":        {change(func(m *wasmtest.Module) { m.Memory = nil }), "no memory of its own"},
		"another import":   {imports("env.system", "i:i"), `imports "env"."system"`},
		"another module":   {imports("evil\n.proxy_log", "iii:i"), `imports "evil\n"."proxy_log"`},
		"a wrong import":   {imports("env.proxy_done", "i:i"), "imports env.proxy_done as a function of another kind"},
		"a denied import":  {imports("env.proxy_get_shared_data", "iiiii:i"), ""},
		"files":            {imports("wasi_snapshot_preview1.fd_write", "iiii:i"), ""},
		"a wrong export":   {exports("proxy_on_log", "ii:"), "exports proxy_on_log as a function of another kind"},
		"an export":        {exports("other", "d:i", wasmtest.I32(-70000)), ""},
		"no version":       {without("proxy_abi_version_0_2_1"), "exports neither proxy_abi_version_0_2_0"},
		"two versions":     {exports("proxy_abi_version_0_2_0", ":"), "several versions"},
		"no allocation":    {without("malloc"), "nor malloc"},
		"a large memory":   {change(func(m *wasmtest.Module) { m.Memory = wasmtest.Limits{513} }), "513, and can have 512"},
		"memory backwards": {change(func(m *wasmtest.Module) { m.Memory = wasmtest.Limits{4, 3} }), "less than it has"},
		"a large table":    {change(func(m *wasmtest.Module) { m.Tables = []wasmtest.Limits{{1 << 20}} }), "can have 65536"},
		"a small table":    {change(func(m *wasmtest.Module) { m.Tables = []wasmtest.Limits{{1}} }), ""},
		"locals":           {change(func(m *wasmtest.Module) { m.Functions[0].Locals = 1 << 31 }), "locals"},
		"sections in disorder": {
			slices.Concat(header(), wasmtest.Section(7, []byte{0}), wasmtest.Section(5, []byte{1, 0, 3})), "in another order",
		},
		"a section unknown": {append(plugin().Bytes(), wasmtest.Section(13, []byte{0})...), "kind 13"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Judge(tc.module)
			if tc.refused != "" {
				require.ErrorContains(t, err, tc.refused)
				return
			}
			require.NoError(t, err)
			again, err := Judge(m.Code)
			require.NoError(t, err)
			require.Equal(t, m.Memory, again.Memory, "what proxies get is as bounded as it says")
		})
	}
}

// TestBounds: memories and tables end where their author, or who bounds them, says; what is for tools is left out.
func TestBounds(t *testing.T) {
	for _, tc := range []struct{ from, to wasmtest.Limits }{
		{wasmtest.Limits{3}, wasmtest.Limits{3, mostPages}},
		{wasmtest.Limits{3, 4}, wasmtest.Limits{3, 4}},
		{wasmtest.Limits{3, 65536}, wasmtest.Limits{3, mostPages}},
	} {
		m, want := wasmtest.Plugin(), wasmtest.Plugin()
		m.Memory, m.Tables = tc.from, []wasmtest.Limits{{7}}
		want.Memory, want.Tables = tc.to, []wasmtest.Limits{{7, mostEntries}}
		m.Custom = map[string][]byte{"name": make([]byte, 5000), ".debug_info": {1, 2, 3}}
		got, err := bound(m.Bytes())
		require.NoError(t, err)
		require.Equal(t, want.Bytes(), got.Code)
		require.Equal(t, int(tc.to[1])*pageBytes, got.Memory)
	}
}

// TestSmallModulesAskForLittle: nothing is made for what a module says it has and hasn't.
func TestSmallModulesAskForLittle(t *testing.T) {
	many := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	type section struct {
		id      byte
		content []byte
	}
	for name, of := range map[string]section{
		"types":     {typeSection, many},
		"params":    {typeSection, append([]byte{1, 0x60}, many...)},
		"imports":   {importSection, many},
		"functions": {functionSection, many},
		"globals":   {globalSection, many},
		"exports":   {exportSection, many},
		"elements":  {elementSection, append([]byte{1, 0, 0x41, 0, 0x0b}, many...)},
		"data":      {dataSection, append([]byte{1, 0, 0x41, 0, 0x0b}, many...)},
		"code":      {codeSection, many},
		"locals":    {codeSection, append(append([]byte{1, 8, 1}, many...), 0x7f, 0x0b)},
	} {
		module := append(header(), wasmtest.Section(of.id, of.content)...)
		made := testing.AllocsPerRun(1, func() {
			_, err := bound(module)
			require.Error(t, err, name)
		})
		require.Less(t, made, 100.0, name)
		_, err := Judge(module)
		require.Error(t, err)
	}
}

// TestManyFunctions: a module of the greatest size with as many functions as one can have is judged in a moment.
func TestManyFunctions(t *testing.T) {
	m := wasmtest.Plugin()
	busy := wasmtest.Raw(bytes.Repeat([]byte{0x41, 1, 0x1a}, 15)...)
	for range mostFunctions - len(m.Functions) {
		m.Functions = append(m.Functions, wasmtest.Function{Signature: ":", Locals: 10, Body: []wasmtest.Op{busy}})
	}
	began := time.Now()
	module := m.Bytes()
	require.Less(t, len(module), MostBytes)
	require.Greater(t, len(module), MostBytes*9/10)
	_, err := Judge(module)
	require.NoError(t, err)
	require.Less(t, time.Since(began), 20*time.Second, "on a busy machine")
}

// TestVerdictsAreRemembered: and not more of them than there is room for.
func TestVerdictsAreRemembered(t *testing.T) {
	module := wasmtest.Plugin().Bytes()
	first, err := Judge(module)
	require.NoError(t, err)
	again, err := Judge(module)
	require.NoError(t, err)
	require.Same(t, first, again)
	for n := range mostRemembered + 1 {
		_, err := Judge([]byte{byte(n)})
		require.Error(t, err)
	}
	require.Len(t, remembered.of, mostRemembered)
	again, err = Judge(module)
	require.NoError(t, err)
	require.NotSame(t, first, again)
	require.Equal(t, first, again)
}

func FuzzJudge(f *testing.F) {
	f.Add(wasmtest.Plugin().Bytes())
	f.Fuzz(func(t *testing.T, module []byte) {
		if m, err := judge(module); err == nil {
			_, err := judge(m.Code)
			require.NoError(t, err)
			again, err := bound(m.Code)
			require.NoError(t, err)
			require.Equal(t, m.Code, again.Code)
		}
	})
}
