// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wasmtest writes modules in WebAssembly for tests, so that none needs a compiler: what is valid and what
// isn't, down to the byte.
package wasmtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Module is written by its fields.
type Module struct {
	// Imports are of functions, each module.name.
	Imports []Function
	// Functions are its own. Those with a name are exported.
	Functions []Function
	// Memory are the limits of its memory, in pages; none if empty. Exported as memory.
	Memory Limits
	// Tables are of functions.
	Tables []Limits
	// Custom are sections for tools, by name.
	Custom map[string][]byte

	texts []byte
}

// Limits are from, and to if there is a second one.
type Limits []uint32

// Function has a signature in letters, its parameters before a colon and its results behind: i for i32, l for i64, d
// for f64.
type Function struct {
	Name, Signature string
	// Locals are of i32, so many behind the parameters.
	Locals uint32
	Body   []Op
}

// Op is an instruction, or several.
type Op func(m *Module, out []byte) []byte

// textsAt is where texts are in the memory.
const textsAt = 1024

// Text is what pushes where a text is, and how long.
func (m *Module) Text(s string) Op {
	at := textsAt + len(m.texts)
	m.texts = append(m.texts, s...)
	return Ops(I32(at), I32(len(s)))
}

// Bytes are the module.
func (m *Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	all := slices.Concat(m.Imports, m.Functions)
	var types, imports, functions, exports, code [][]byte
	typeOf := map[string]int{}
	for n, f := range all {
		typ, known := typeOf[f.Signature]
		if !known {
			typ = len(types)
			typeOf[f.Signature] = typ
			params, results, _ := strings.Cut(f.Signature, ":")
			types = append(types, slices.Concat([]byte{0x60}, valueTypes(params), valueTypes(results)))
		}
		if n < len(m.Imports) {
			module, name, _ := strings.Cut(f.Name, ".")
			imports = append(imports, slices.Concat(Name(module), Name(name), []byte{0}, U32(typ)))
			continue
		}
		functions = append(functions, U32(typ))
		if f.Name != "" {
			exports = append(exports, slices.Concat(Name(f.Name), []byte{0}, U32(n)))
		}
		body := []byte{0}
		if f.Locals > 0 {
			body = slices.Concat([]byte{1}, U32(f.Locals), []byte{0x7f})
		}
		body = append(Ops(f.Body...)(m, body), 0x0b)
		code = append(code, slices.Concat(U32(len(body)), body))
	}
	out = append(out, Section(1, vector(types))...)
	out = append(out, Section(2, vector(imports))...)
	out = append(out, Section(3, vector(functions))...)
	var tables [][]byte
	for _, t := range m.Tables {
		tables = append(tables, append([]byte{0x70}, t.bytes()...))
	}
	out = append(out, Section(4, vector(tables))...)
	if len(m.Memory) > 0 {
		out = append(out, Section(5, vector([][]byte{m.Memory.bytes()}))...)
		exports = append(exports, slices.Concat(Name("memory"), []byte{2, 0}))
	}
	// One global, the end of what is allocated.
	out = append(out, Section(6, []byte{1, 0x7f, 1, 0x41, 0x80, 0x80, 4, 0x0b})...)
	out = append(out, Section(7, vector(exports))...)
	out = append(out, Section(10, vector(code))...)
	if len(m.texts) > 0 {
		data := slices.Concat([]byte{0}, I32(textsAt)(m, nil), []byte{0x0b}, U32(len(m.texts)), m.texts)
		out = append(out, Section(11, vector([][]byte{data}))...)
	}
	for name, content := range m.Custom {
		out = append(out, Section(0, slices.Concat(Name(name), content))...)
	}
	return out
}

// Section of a module, none if it is empty.
func Section(id byte, content []byte) []byte {
	if len(content) == 0 {
		return nil
	}
	return slices.Concat([]byte{id}, U32(len(content)), content)
}

// Name of something.
func Name(s string) []byte { return append(U32(len(s)), s...) }

// U32 is a number without a sign.
func U32[N int | uint32](n N) (out []byte) {
	for n >= 0x80 {
		out = append(out, byte(n&0x7f)|0x80)
		n >>= 7
	}
	return append(out, byte(n&0x7f))
}

func (l Limits) bytes() []byte {
	out := []byte{0}
	if len(l) > 1 {
		out[0] = 1
	}
	for _, n := range l {
		out = append(out, U32(n)...)
	}
	return out
}

func vector(items [][]byte) []byte {
	if len(items) == 0 {
		return nil
	}
	return append(U32(len(items)), bytes.Join(items, nil)...)
}

func valueTypes(letters string) []byte {
	out := U32(len(letters))
	for _, l := range letters {
		out = append(out, map[rune]byte{'i': 0x7f, 'l': 0x7e, 'd': 0x7c}[l])
	}
	return out
}

// --- instructions

// Ops are several.
func Ops(all ...Op) Op {
	return func(m *Module, out []byte) []byte {
		for _, op := range all {
			out = op(m, out)
		}
		return out
	}
}

// Raw are bytes.
func Raw(b ...byte) Op { return func(_ *Module, out []byte) []byte { return append(out, b...) } }

// I32 pushes a number.
func I32[N int | int32](n N) Op {
	return func(_ *Module, out []byte) []byte {
		out = append(out, 0x41)
		for n := n; ; { // it may be pushed again
			b := byte(n & 0x7f)
			if n >>= 7; n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
				return append(out, b)
			}
			out = append(out, b|0x80)
		}
	}
}

// Call a function of the module, or one that it imports, by its name.
func Call(name string) Op {
	return func(m *Module, out []byte) []byte {
		n := slices.IndexFunc(slices.Concat(m.Imports, m.Functions), func(f Function) bool { return f.Name == name })
		if n < 0 {
			panic(fmt.Sprintf("there is no function %s", name))
		}
		return append(append(out, 0x10), U32(n)...)
	}
}

// Instructions without operands of their own.
var (
	Trap   = Raw(0x00)
	Drop   = Raw(0x1a)
	Return = Raw(0x0f)
)

// Forever does something again and again.
func Forever(all ...Op) Op { return Ops(Raw(0x03, 0x40), Ops(all...), Raw(0x0c, 0, 0x0b)) }

// Local pushes a parameter, or a local behind them.
func Local(n byte) Op { return Raw(0x20, n) }

// If does something where what is on the stack is not zero.
func If(all ...Op) Op { return Ops(Raw(0x04, 0x40), Ops(all...), Raw(0x0b)) }
