// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasmtest

import (
	"encoding/binary"
	"slices"
	"time"
)

// Maps of headers, as Proxy-Wasm numbers them.
const (
	Request  = 0
	Response = 2
)

// Buffers, as Proxy-Wasm numbers them.
const (
	RequestBody   = 0
	ResponseBody  = 1
	Configuration = 7
)

// host are the functions that plugins import.
var host = []Function{
	{Name: "env.proxy_log", Signature: "iii:i"},
	{Name: "env.proxy_get_header_map_value", Signature: "iiiii:i"},
	{Name: "env.proxy_add_header_map_value", Signature: "iiiii:i"},
	{Name: "env.proxy_replace_header_map_value", Signature: "iiiii:i"},
	{Name: "env.proxy_remove_header_map_value", Signature: "iii:i"},
	{Name: "env.proxy_set_header_map_pairs", Signature: "iii:i"},
	{Name: "env.proxy_get_buffer_bytes", Signature: "iiiii:i"},
	{Name: "env.proxy_set_buffer_bytes", Signature: "iiiii:i"},
	{Name: "env.proxy_get_property", Signature: "iiii:i"},
	{Name: "env.proxy_set_property", Signature: "iiii:i"},
	{Name: "env.proxy_send_local_response", Signature: "iiiiiiii:i"},
	{Name: "env.proxy_http_call", Signature: "iiiiiiiiii:i"},
	{Name: "env.proxy_call_foreign_function", Signature: "iiiiii:i"},
	{Name: "env.proxy_set_effective_context", Signature: "i:i"},
	{Name: "env.proxy_set_shared_data", Signature: "iiiii:i"},
	{Name: "env.proxy_define_metric", Signature: "iiii:i"},
	{Name: "env.proxy_set_tick_period_milliseconds", Signature: "i:i"},
}

// Callbacks of plugins.
const (
	OnRequest      = "proxy_on_request_headers"
	OnRequestBody  = "proxy_on_request_body"
	OnResponse     = "proxy_on_response_headers"
	OnResponseBody = "proxy_on_response_body"
	OnConfigure    = "proxy_on_configure"
)

// Plugin is a module that speaks Proxy-Wasm and does nothing yet.
func Plugin() *Module {
	out := &Module{Imports: host, Memory: Limits{3}}
	add := func(name, signature string, body ...Op) {
		out.Functions = append(out.Functions, Function{Name: name, Signature: signature, Body: body})
	}
	add("proxy_abi_version_0_2_1", ":")
	add("proxy_on_context_create", "ii:")
	add("proxy_on_vm_start", "ii:i", I32(1))
	// What the host gives is used at once, so it is always put in one place: behind what is kept.
	add("malloc", "i:i", Raw(0x23, 0))
	return out
}

// On has the plugin do something in a callback, and go on.
func (m *Module) On(callback string, does ...Op) *Module {
	signature, result := "iii:i", int32(0)
	if callback == OnConfigure {
		signature, result = "ii:i", 1
	}
	m.Functions = append(m.Functions, Function{
		Name: callback, Signature: signature, Body: append(does, I32(result)),
	})
	return m
}

// Set a header to a value.
func (m *Module) Set(of int32, name, value string) Op {
	return Ops(I32(of), m.Text(name), m.Text(value), Call("env.proxy_replace_header_map_value"), Drop)
}

// Add a header.
func (m *Module) Add(of int32, name, value string) Op {
	return Ops(I32(of), m.Text(name), m.Text(value), Call("env.proxy_add_header_map_value"), Drop)
}

// Remove a header.
func (m *Module) Remove(of int32, name string) Op {
	return Ops(I32(of), m.Text(name), Call("env.proxy_remove_header_map_value"), Drop)
}

// RemoveAll headers at once.
func (m *Module) RemoveAll(of int32) Op {
	return Ops(I32(of), m.Text("\x00\x00\x00\x00"), Call("env.proxy_set_header_map_pairs"), Drop)
}

// Log a line as a warning.
func (m *Module) Log(line string) Op { return Ops(I32(3), m.Text(line), Call("env.proxy_log"), Drop) }

// Where the host writes where a text is, and how long.
const at, long, keptAt, keptLong = 16, 20, 24, 28

// Keep what the plugin is configured by, in OnConfigure, for SetKept.
func Keep() Op {
	return Ops(
		I32(Configuration), I32(0), I32(1<<20), I32(keptAt), I32(keptLong), Call("env.proxy_get_buffer_bytes"), Drop,
		Raw(0x23, 0), I32(keptLong), load, Raw(0x6a, 0x24, 0)) // global.get, i32.add, global.set
}

// SetKept sets a header of the request to what was kept.
func (m *Module) SetKept(name string) Op {
	return Ops(I32(Request), m.Text(name), I32(keptAt), load, I32(keptLong), load,
		Call("env.proxy_replace_header_map_value"), Drop)
}

// Copy a header of the request into another one.
func (m *Module) Copy(from, to string) Op {
	return Ops(
		I32(Request), m.Text(from), I32(at), I32(long), Call("env.proxy_get_header_map_value"), Drop,
		I32(Request), m.Text(to), I32(at), load, I32(long), load, Call("env.proxy_replace_header_map_value"), Drop)
}

// If does something where the request has a header.
func (m *Module) If(header string, does ...Op) Op { return m.IfOf(Request, header, does...) }

// IfOf does something where a map has a header.
func (m *Module) IfOf(of int32, header string, does ...Op) Op {
	return Ops(I32(of), m.Text(header), I32(at), I32(long), Call("env.proxy_get_header_map_value"), Raw(0x45),
		If(does...))
}

// load pushes the number at an address.
var load = Raw(0x28, 2, 0)

// Replace what is in a buffer.
func (m *Module) Replace(buffer int32, with string) Op {
	return Ops(I32(buffer), I32(0), I32(1<<20), m.Text(with), Call("env.proxy_set_buffer_bytes"), Drop)
}

// SetIf sets a header of the request where a function of the host takes what it is given: where it answers 0.
func (m *Module) SetIf(name string, taken ...Op) Op {
	return Ops(Ops(taken...), Raw(0x45), If(m.Set(Request, name, "1")))
}

// TriedUntil has the plugin take its configuration until a moment, when it is through with it at the soonest, and not
// from then on. Envoy has a plugin configured once to try it, and then by each thread: so it is taken, and no thread
// has it.
func (m *Module) TriedUntil(moment time.Time) *Module {
	const clock = "env.proxy_get_current_time_nanoseconds"
	m.Imports = append(slices.Clone(m.Imports), Function{Name: clock, Signature: "i:i"})
	limit := m.Text(string(binary.LittleEndian.AppendUint64(nil, uint64(moment.UnixNano()))))
	load64 := Raw(0x29, 0, 0)
	now := func(compared byte) Op {
		return Ops(I32(at), Call(clock), Drop, I32(at), load64, limit, Drop, load64, Raw(compared))
	}
	const before, after = 0x54, 0x5a // i64.lt_u, i64.ge_u
	return m.On(OnConfigure, now(after), If(I32(0), Return),
		Raw(0x03, 0x40), now(before), Raw(0x0d, 0, 0x0b)) // loop: again if it is before
}

// Grow asks for memory for as long as there is some.
func Grow() Op {
	return Raw(0x03, 0x40, 0x41, 1, 0x40, 0, 0x41, 0x7f, 0x47, 0x0d, 0, 0x0b) // loop: memory.grow(1) != -1: again
}
