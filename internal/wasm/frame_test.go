// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/wasmtest"
)

// TestMarkedModules say that they are there, by what they can, and then do what they do: their memory is as it was.
func TestMarkedModules(t *testing.T) {
	const remove, replace, add = "env.proxy_remove_header_map_value", "env.proxy_replace_header_map_value",
		"env.proxy_add_header_map_value"
	for name, tc := range map[string]struct {
		without []string
		asks    string
		args    []uint64
	}{
		"all":         {nil, remove, []uint64{0, 0, 8}},
		"no removal":  {[]string{remove}, replace, []uint64{0, 0, 8, 0, 8}},
		"adding only": {[]string{remove, replace}, add, []uint64{0, 0, 8, 0, 8}},
		"none":        {[]string{remove, replace, add}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := wasmtest.Plugin()
			p.Imports = slices.DeleteFunc(slices.Clone(p.Imports), func(f wasmtest.Function) bool {
				return slices.Contains(tc.without, f.Name)
			})
			// What is at the beginning of the memory, and what it was asked, it keeps.
			p.Functions = append(p.Functions, wasmtest.Function{
				Name: wasmtest.OnRequest, Signature: "iii:i", Body: []wasmtest.Op{
					wasmtest.I32(64), wasmtest.I32(0), wasmtest.Raw(0x28, 0, 0), wasmtest.Local(0), wasmtest.Raw(0x6a),
					wasmtest.Raw(0x36, 0, 0), wasmtest.I32(0),
				},
			})
			m, err := Judge(p.Bytes())
			require.NoError(t, err)
			require.Equal(t, tc.asks != "", m.Marked)
			var asked []string
			var args []uint64
			r := instance(t, p, m.Code, func(name string, memory api.Memory, stack []uint64) {
				asked, args = append(asked, name), slices.Clone(stack)
				text, _ := memory.Read(0, 8)
				require.Equal(t, names.ModuleMark, string(text))
				stack[0] = 0
			})
			require.True(t, r.Memory().Write(0, []byte{1, 2, 0, 0, 5, 6, 7, 8}))
			out, err := r.ExportedFunction(wasmtest.OnRequest).Call(t.Context(), 3, 0, 0)
			require.NoError(t, err)
			require.Equal(t, []uint64{0}, out)
			seen, _ := r.Memory().ReadUint32Le(64)
			require.EqualValues(t, 0x201+3, seen)
			kept, _ := r.Memory().Read(0, 8)
			require.Equal(t, []byte{1, 2, 0, 0, 5, 6, 7, 8}, kept)
			if tc.asks == "" {
				require.Empty(t, asked)
				return
			}
			require.Equal(t, []string{tc.asks}, asked)
			require.Equal(t, tc.args, args)
			out, err = r.ExportedFunction(wasmtest.OnResponse).Call(t.Context(), 3, 0, 0)
			require.NoError(t, err)
			require.Equal(t, []uint64{0}, out, "it has none of its own, and goes on")
			require.Equal(t, uint64(2), args[0])
		})
	}
}

// TestWhatModulesMaySay of what they are shown: that it goes on, and of a piece of a body that it is held as long as
// more come.
func TestWhatModulesMaySay(t *testing.T) {
	const more, ends = 0, 1
	for _, callback := range []string{
		wasmtest.OnRequest, wasmtest.OnResponse, wasmtest.OnRequestBody, wasmtest.OnResponseBody,
	} {
		p := wasmtest.Plugin()
		// It says what its second parameter is.
		p.Functions = append(p.Functions, wasmtest.Function{
			Name: callback, Signature: "iii:i", Body: []wasmtest.Op{wasmtest.Local(1)},
		})
		m, err := Judge(p.Bytes())
		require.NoError(t, err)
		r := instance(t, p, m.Code, func(_ string, _ api.Memory, stack []uint64) { stack[0] = 0 })
		body := callback == wasmtest.OnRequestBody || callback == wasmtest.OnResponseBody
		for _, says := range []uint64{0, 1, 2, 3, 4, math.MaxUint32} {
			for _, end := range []uint64{more, ends} {
				out, err := r.ExportedFunction(callback).Call(t.Context(), 3, says, end)
				if says == 0 || says == 1 && body && end == more {
					require.NoError(t, err, "%s: %d, %d", callback, says, end)
					require.Equal(t, []uint64{says}, out)
				} else {
					require.ErrorContains(t, err, "unreachable", "%s: %d, %d", callback, says, end)
				}
			}
		}
	}
}

// TestFunctionsOfProxiesAsCallbacks are framed like a module's own.
func TestFunctionsOfProxiesAsCallbacks(t *testing.T) {
	p := wasmtest.Plugin()
	// An import that is exported has no function of its own: the export of the first one is renumbered to import 0.
	p.Functions = append(p.Functions, wasmtest.Function{
		Name: wasmtest.OnRequestBody, Signature: "iii:i", Body: []wasmtest.Op{wasmtest.I32(0)},
	})
	number := byte(len(p.Imports) + len(p.Functions) - 1)
	own := append([]byte(wasmtest.OnRequestBody), 0, number)
	module := p.Bytes()
	require.Equal(t, 1, bytes.Count(module, own))
	m, err := Judge(bytes.Replace(module, own, append([]byte(wasmtest.OnRequestBody), 0, 0), 1))
	require.NoError(t, err)
	r := instance(t, p, m.Code, func(_ string, _ api.Memory, stack []uint64) { stack[0] = 2 })
	_, err = r.ExportedFunction(wasmtest.OnRequestBody).Call(t.Context(), 3, 0, 0)
	require.ErrorContains(t, err, "unreachable")
}

// instance runs a module with functions of a host that say by what they were called.
func instance(
	t *testing.T, p *wasmtest.Module, code []byte, called func(name string, memory api.Memory, stack []uint64),
) api.Module {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	host := r.NewHostModuleBuilder("env")
	for _, f := range p.Imports {
		var in []api.ValueType
		for range len(f.Signature) - len(":i") {
			in = append(in, api.ValueTypeI32)
		}
		host.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(
			func(_ context.Context, m api.Module, stack []uint64) { called(f.Name, m.Memory(), stack[:len(in)]) },
		), in, []api.ValueType{api.ValueTypeI32}).Export(f.Name[len("env."):])
	}
	_, err := host.Instantiate(t.Context())
	require.NoError(t, err)
	m, err := r.Instantiate(t.Context(), code)
	require.NoError(t, err)
	return m
}
